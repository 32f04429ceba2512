use super::*;
use crate::mapping::{Kind, Terms, Wanted};
use crate::testing::Folder;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// As the original wrote it: a private and a public mapping, a direct entry, and numbers out of range.
const FROM_THE_ORIGINAL: &str = concat!(
    r#"{"mappings":[{"id":"af1c","port1":32772,"port2":32773,"maxconnectionsport1":1,"maxconnectionsport2":2,"#,
    r#""passcodeport1":"f96d","passcodeport2":"07c7","heartbeatabsencethresholdport1":200000,"#,
    r#""heartbeatabsencethresholdport2":100000},{"id":"ba07","port1":32768,"port2":32769,"#,
    r#""maxconnectionsport1":60,"maxconnectionsport2":60,"passcodeport1":"9bb0","passcodeport2":"","#,
    r#""heartbeatabsencethresholdport1":200000,"heartbeatabsencethresholdport2":0},{"id":"c19a","port1":0,"#,
    r#""port2":0,"maxconnectionsport1":0,"maxconnectionsport2":0,"passcodeport1":"b254","passcodeport2":"","#,
    r#""heartbeatabsencethresholdport1":0,"heartbeatabsencethresholdport2":0}]}"#
);

fn one(port1: &str, port2: &str, connections: &str, passcode1: &str, absence: &str) -> String {
    format!(
        r#"{{"mappings":[{{"id":"a","port1":{port1},"port2":{port2},"maxconnectionsport1":{connections},
        "maxconnectionsport2":{connections},"passcodeport1":{passcode1},"passcodeport2":"",
        "heartbeatabsencethresholdport1":{absence},"heartbeatabsencethresholdport2":0}}]}}"#
    )
}

fn terms(max_connections: u16) -> Terms {
    Terms { max_connections, absence: Some(Duration::from_secs(1)) }
}

#[test]
fn the_originals_file_comes_out_as_it_went_in() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    fs::write(&file, FROM_THE_ORIGINAL).unwrap();
    let (store, mappings) = Store::open(&file).unwrap();
    assert_eq!(mappings.len(), 3);
    assert_eq!(mappings[1].ports(), Some([32768, 32769]));
    assert!(matches!(&mappings[2].kind, Kind::Direct { passkey } if passkey.expose() == "b254"));
    store.save(mappings.iter()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), FROM_THE_ORIGINAL);
}

#[test]
fn a_missing_file_holds_no_mappings_and_is_made_by_the_first_save() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    let (store, mappings) = Store::open(&file).unwrap();
    assert_eq!(mappings, []);
    assert!(!file.exists());
    store.save([].iter()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), r#"{"mappings":[]}"#);
}

#[test]
fn what_is_saved_is_loaded_again_and_nobody_else_may_read_it() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    fs::write(&file, r#"{"mappings":[]}"#).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let saved = [
        Mapping::new(&Wanted::Public(terms(3)).into(), [1000, 1001]),
        Mapping::new(
            &Wanted::Private([terms(1), Terms { max_connections: 65535, absence: None }]).into(),
            [1002, 1003],
        ),
        Mapping::new_direct(),
    ];
    Store::open(&file).unwrap().0.save(saved.iter()).unwrap();
    assert_eq!(Store::open(&file).unwrap().1, saved);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn numbers_that_the_original_took_become_the_nearest_possible() {
    for (connections, absence, expected) in [
        ("-1", "-5", (1, None)),
        ("0", "0", (1, None)),
        ("1215752191", "1215752191", (65535, Some(Duration::from_millis(1_215_752_191)))),
    ] {
        let text = one("32768", "32769", connections, "\"p\"", absence);
        let mappings = parse(text.as_bytes()).unwrap();
        let Kind::Public { agents, .. } = &mappings[0].kind else { panic!("{mappings:?} is not public") };
        assert_eq!((agents.max_connections, agents.absence), expected);
    }
}

#[test]
fn a_broken_file_is_refused_with_its_place_and_left_alone() {
    let twice = |text: &str, other: &str| {
        let record = text.trim_start_matches("{\"mappings\":[").trim_end_matches("]}");
        format!("{{\"mappings\":[{record},{}]}}", record.replace("\"a\"", other))
    };
    // Two with ports and names of their own.
    let named = |text: &str, other: &str, first: &str, second: &str| {
        let record = text.trim_start_matches("{\"mappings\":[").trim_end_matches("}]}");
        let other = record.replace("\"a\"", other).replace("\"port1\":1,", "\"port1\":3,");
        let other = other.replace("\"port2\":2,", "\"port2\":4,");
        format!(r#"{{"mappings":[{record},"name":"{first}"}},{other},"name":"{second}"}}]}}"#)
    };
    let good = one("1", "2", "1", "\"p\"", "0");
    for (text, complaint) in [
        ("".to_owned(), "line 1, column 0"),
        ("{\"mappings\":[\n{\"id\":\"a\",".to_owned(), "line 2, column 10"),
        ("{\"mappings\":[]} x".to_owned(), "line 1, column 17: there is more text"),
        ("[]".to_owned(), "line 1"),
        ("{\"mappings\":[{\"id\":\"a\"}]}".to_owned(), "the key \"port1\" is missing"),
        (one("70000", "2", "1", "\"p\"", "0"), "line 1, column"),
        (one("1", "0", "1", "\"p\"", "0"), "mapping a: port2 is 0"),
        (one("7", "7", "1", "\"p\"", "0"), "mapping a: port2 is 7"),
        (one("1", "2", "1", "\"\"", "0"), "mapping a: passcodeport1 is empty"),
        (
            one("1", "2", "1", "\"\"", "0").replace("\"a\"", r#""\n\u001b""#),
            r"mapping \n\u{1b}: passcodeport1 is empty",
        ),
        (good.replace("}]}", r#"}],"tomorrow":1}"#), "the key \"tomorrow\" is not known to this version"),
        (good.replace("}]}", r#","name":"x","name":"y"}]}"#), "the key \"name\" is given twice"),
        (good.replace("}]}", r#","port1":1}]}"#), "the key \"port1\" is given twice"),
        (twice(&good, "\"a\""), "two mappings have the id a"),
        (twice(&good, "\"b\""), "two mappings have the port 1"),
        (named(&good, "\"b\"", "web", "web"), "two mappings have the name web"),
        (named(&good, "\"b\"", "web", "a"), "a is the name of a mapping and the id of another one"),
        (good.replace("}]}", r#","name":"x y"}]}"#), "mapping a: name is \"x y\", expected"),
        (good.replace("}]}", r#","tomorrow":1}]}"#), "mapping a: the key \"tomorrow\" is not known to this version"),
    ] {
        let folder = Folder::new();
        let file = folder.0.join(FILE_NAME);
        fs::write(&file, &text).unwrap();
        let message = Store::open(&file).unwrap_err().to_string();
        assert!(message.contains(complaint), "{text}: {message}");
        assert!(message.starts_with(file.to_str().unwrap()), "{message}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn leftovers_of_a_crash_are_cleaned_and_in_nobodys_way() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    fs::write(folder.0.join("configs.json.new"), "half a fi").unwrap();
    let (store, mappings) = Store::open(&file).unwrap();
    assert_eq!(mappings, []);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    store.save([].iter()).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn a_folder_that_vanished_is_an_error_and_no_more() {
    let folder = Folder::new();
    let below = folder.0.join("below");
    fs::create_dir(&below).unwrap();
    let (store, _) = Store::open(&below.join(FILE_NAME)).unwrap();
    fs::remove_dir(&below).unwrap();
    let message = store.save([].iter()).unwrap_err().to_string();
    assert!(message.contains("configs.json: could not open its folder: No such file"), "{message}");
}

/// A directory in the file's place lets everything succeed but the rename.
#[test]
fn a_save_that_fails_at_the_last_step_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    let (store, _) = Store::open(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = store.save([].iter()).unwrap_err();
    assert!(!error.is_in_place(), "a restart brings the old content back, and nothing has to be written anew");
    let message = error.to_string();
    assert!(message.contains("put its next version in place"), "{message}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn what_a_failed_save_left_behind_is_not_in_the_way() {
    let folder = Folder::new();
    let file = folder.0.join(FILE_NAME);
    let (store, _) = Store::open(&file).unwrap();
    fs::write(folder.0.join("configs.json.new"), "half of").unwrap();
    store.save([].iter()).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), r#"{"mappings":[]}"#);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let folder = Folder::new();
    let (target, link) = (folder.0.join("target.json"), folder.0.join(FILE_NAME));
    fs::write(&target, FROM_THE_ORIGINAL).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    Store::open(&link).unwrap().0.save([].iter()).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), r#"{"mappings":[]}"#);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_link_to_nothing_yet_stays_a_link() {
    let folder = Folder::new();
    let link = folder.0.join(FILE_NAME);
    std::os::unix::fs::symlink("target.json", &link).unwrap();
    Store::open(&link).unwrap().0.save([].iter()).unwrap();
    assert_eq!(fs::read_to_string(folder.0.join("target.json")).unwrap(), r#"{"mappings":[]}"#);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_folder_that_cannot_be_written_to_is_warned_of() {
    let folder = Folder::new();
    assert_eq!(read_only(&folder.0), None);
    let gone = folder.0.join("gone");
    let warning = read_only(&gone).unwrap();
    assert!(warning.starts_with(&gone.display().to_string()), "{warning}");
}
