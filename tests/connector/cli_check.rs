//! check: 0 or 78, every fault named, nothing changed.

use crate::harness::{Daemon, Mode, PATIENCE, Setup, wait_until};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

const EX_CONFIG: i32 = 78;

/// Expects a fault that is told with each of `words`.
#[track_caller]
fn faulty(daemon: &Daemon, words: &[&str]) {
    let said = daemon.command(&["check"]);
    assert_eq!(said.status, EX_CONFIG, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{said:?} does not name {word}");
    }
}

#[test]
fn good_files_are_good_and_nothing_is_changed() {
    for mode in [Mode::Plain, Mode::Tls] {
        let daemon = Setup::new(mode).prepare();
        // What a crash left; only the daemon may clean it up.
        fs::write(daemon.path("configs.json.new"), "").expect("a file");
        let said = daemon.command(&["check"]);
        assert_eq!(said.status, 0, "{said:?}");
        assert!(said.out.contains("connector.conf: good"), "{said:?}");
        assert!(said.out.contains("configs.json: good, 0 mappings"), "{said:?}");
        assert_eq!(said.out.contains("server-cert.pem: good"), mode == Mode::Tls, "{said:?}");
        assert!(daemon.path("configs.json.new").exists());
        assert!(!daemon.path("configs.json").exists() && !daemon.path("connector.conf.pid").exists());
    }
}

#[test]
fn each_fault_is_named() {
    let daemon = Setup::new(Mode::Tls).set("apitoken", "token").set("controllerca", "ca.pem").prepare();
    fs::write(daemon.path("configs.json"), "{\"mappings\":\n[1]}").expect("a file");
    fs::remove_file(daemon.path("server-key.pem")).expect("it was written");
    faulty(&daemon, &["server-key.pem", "apitoken", "controllerca", "configs.json", "line 2"]);
    fs::write(daemon.path("connector.conf"), "{\"prots\": []}").expect("a file");
    faulty(&daemon, &["connector.conf, line 1", "prots"]);
}

#[test]
fn ports_that_are_taken_are_named_unless_the_daemon_has_them() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    assert!(daemon.command(&["check"]).out.contains("configs.json: good, 1 mapping\n"));
    assert_eq!(daemon.command(&["check"]).status, 0);
    daemon.terminate();
    assert_eq!(daemon.command(&["check"]).status, 0);
    // A start goes on without it.
    let taken = TcpListener::bind(("127.0.0.1", mapping.ports[1])).expect("a port");
    let said = daemon.command(&["check"]);
    let problem = format!("port {} of the mapping {} could not be bound: ", mapping.ports[1], mapping.id);
    assert!(said.status == 0 && said.err.contains(&problem) && !said.out.contains("all free"), "{said:?}");
    daemon.start();
    let told = format!("port {} could not be bound", mapping.ports[1]);
    wait_until("the log tells of it", PATIENCE, || daemon.log().contains(&told));
    daemon.terminate();
    drop(taken);
    let _taken = TcpListener::bind(("127.0.0.1", daemon.ports.api())).expect("a port");
    refused_by_both(&daemon, EX_UNAVAILABLE, &[&daemon.ports.api().to_string(), "API"]);
}

#[test]
fn a_log_that_cannot_be_written_is_named_and_not_made() {
    let daemon = Setup::new(Mode::Plain).set("logfile", "no-such-folder/log").prepare();
    faulty(&daemon, &["logfile", "no-such-folder/log"]);
    let daemon = Setup::new(Mode::Plain).set("logfile", "log").prepare();
    assert_eq!(daemon.command(&["check"]).status, 0);
    assert!(!daemon.path("log").exists());
}

#[test]
fn a_key_with_a_password_is_named_as_such_however_it_is_written() {
    let daemon = Setup::new(Mode::Tls).prepare();
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for key in [old, new] {
        fs::write(daemon.path("server-key.pem"), key).expect("a file");
        faulty(&daemon, &["server-key.pem", "the private key is encrypted", "openssl pkey -in"]);
    }
}

#[test]
fn an_address_of_another_machine_is_named() {
    let daemon = Setup::new(Mode::Plain).set("listen", "192.0.2.1").prepare();
    faulty(&daemon, &["`listen` is no address of this machine"]);
}

/// `start` refuses with this status, naming these words; `check` names them too.
#[track_caller]
fn refused_by_both(daemon: &Daemon, status: i32, words: &[&str]) {
    faulty(daemon, words);
    let said = daemon.command(&["start"]);
    assert_eq!(said.status, status, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{said:?} does not name {word}");
    }
}

const EX_CANTCREAT: i32 = 73;
const EX_UNAVAILABLE: i32 = 69;

#[test]
fn more_buffers_than_there_is_room_for_are_a_fault_of_their_key() {
    for buffers in [1_000_000_000_u64, 4_294_967_295] {
        let daemon = Setup::new(Mode::Plain).set("buffers", buffers).prepare();
        refused_by_both(&daemon, EX_CONFIG, &["connector.conf", "\"buffers\""]);
    }
    // The one fault hides nothing else.
    let daemon =
        Setup::new(Mode::Plain).set("buffers", 4_294_967_295_u64).set("connections", 4_000_000_000_u64).prepare();
    faulty(&daemon, &["\"buffers\"", "`connections` is 4000000000, but the limit of"]);
}

#[test]
fn a_log_is_not_written_into_another_file_of_the_daemons() {
    for file in [
        "connector.conf",
        "./configs.json",
        "server-key.pem",
        "server-key.per",
        "connector.conf.pid",
        "token",
        "one.log",
    ] {
        let daemon = Setup::new(Mode::Tls).set("apitoken", "token").set("logfile", "one.log").set("accesslog", file);
        let daemon = daemon.prepare();
        fs::write(daemon.path("token"), "a token of some length").expect("a file");
        let key = fs::read(daemon.path("server-key.pem")).expect("a file");
        let name = file.trim_start_matches("./");
        refused_by_both(&daemon, EX_CONFIG, &["connector.conf", "\"accesslog\"", name, "a file of its own"]);
        assert_eq!(fs::read(daemon.path("server-key.pem")).expect("a file"), key);
        assert!(!daemon.path("configs.json").exists());
    }
}

/// In a folder where others than root make names, too.
#[test]
fn a_pid_file_with_a_second_name_is_refused_and_left_alone() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let (shared, pid_file) = (daemon.path("shared"), daemon.path("shared/pid"));
    fs::create_dir(&shared).expect("a folder");
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("a folder of ours");
    fs::write(daemon.path("precious"), "precious").expect("a file");
    fs::hard_link(daemon.path("precious"), &pid_file).expect("a link");
    for (command, status) in [("check", EX_CONFIG), ("start", EX_CANTCREAT)] {
        let said = daemon.command(&[command, "--pid-file", pid_file.to_str().expect("UTF-8")]);
        assert!(
            said.status == status && said.err.contains("shared/pid") && said.err.contains("hard links"),
            "{said:?}"
        );
    }
    assert_eq!(fs::read_to_string(daemon.path("precious")).expect("a file"), "precious");
}

#[test]
fn a_pid_file_that_start_would_refuse_is_named_and_left_alone() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let pid_file = daemon.path("connector.conf.pid");
    fs::write(daemon.path("precious"), "precious").expect("a file");
    std::os::unix::fs::symlink(daemon.path("precious"), &pid_file).expect("a link");
    refused_by_both(&daemon, EX_CANTCREAT, &["connector.conf.pid"]);
    fs::remove_file(&pid_file).expect("it is there");
    nix::unistd::mkfifo(&pid_file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused_by_both(&daemon, EX_CANTCREAT, &["connector.conf.pid", "a regular file was expected"]);
    fs::remove_file(&pid_file).expect("it is there");
    fs::create_dir(&pid_file).expect("a folder");
    refused_by_both(&daemon, EX_CANTCREAT, &["connector.conf.pid"]);
    fs::remove_dir(&pid_file).expect("it is there");
    let missing = daemon.path("missing/pid");
    let said = daemon.command(&["check", "--pid-file", missing.to_str().expect("UTF-8")]);
    assert!(said.status == EX_CONFIG && said.err.contains("missing/pid"), "{said:?}");
    assert_eq!(fs::read_to_string(daemon.path("precious")).expect("a file"), "precious");
    assert_eq!(daemon.command(&["check"]).status, 0);
}

#[test]
fn a_log_file_that_start_would_refuse_is_named() {
    let daemon = Setup::new(Mode::Plain).set("logfile", "log").prepare();
    let log = daemon.path("log");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused_by_both(&daemon, EX_CANTCREAT, &["/log"]);
    fs::remove_file(&log).expect("it is there");
    fs::create_dir(&log).expect("a folder");
    refused_by_both(&daemon, EX_CANTCREAT, &["/log"]);
    fs::remove_dir(&log).expect("it is there");
    std::os::unix::fs::symlink("missing/log", &log).expect("a link");
    refused_by_both(&daemon, EX_CANTCREAT, &["/log"]);
}

#[test]
fn a_state_folder_that_is_not_there_is_refused() {
    let daemon = Setup::new(Mode::Plain).prepare();
    let state = daemon.path("missing");
    for command in ["check", "start"] {
        let said = daemon.command(&[command, "--state", state.to_str().expect("UTF-8")]);
        assert_eq!(said.status, EX_CONFIG, "{said:?}");
        assert!(said.err.contains("missing: no state folder"), "{said:?}");
    }
    assert!(!state.exists());
}

/// Such a mapping keeps the daemon from nothing, so `check` warns of it; but nobody will ever reach it.
#[test]
fn a_stored_mapping_on_the_daemons_own_port_is_named_and_the_daemon_runs() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let (mapping, sound) = (daemon.add_public(1), daemon.add_public(1));
    daemon.terminate();
    let settings = fs::read_to_string(daemon.path("connector.conf")).expect("settings");
    let settings: serde_json::Value = serde_json::from_str(&settings).expect("JSON");
    for (key, port) in [("broker", mapping.ports[1]), ("apiport", mapping.ports[0])] {
        let mut settings = settings.clone();
        settings[key] = port.into();
        fs::write(daemon.path("connector.conf"), settings.to_string()).expect("a file");
        let said = daemon.command(&["check"]);
        let problem = format!("port {port} of the mapping {} is the daemon's own (key \"{key}\")", mapping.id);
        assert!(said.status == 0 && said.err.contains(&problem), "{said:?}");
        daemon.spawn();
        wait_until("it runs", PATIENCE, || daemon.command(&["mapping", "show", &sound.id]).status == 0);
        assert!(daemon.log().contains(&problem), "{}", daemon.log());
        assert!(daemon.terminate().success());
    }
}

#[test]
fn files_of_another_users_are_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let daemon = Setup::new(Mode::Plain).set("logfile", "log").prepare();
    let (pid_file, log) = (daemon.path("connector.conf.pid"), daemon.path("log"));
    for file in [&pid_file, &log] {
        fs::write(file, "").expect("a file");
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    }
    let settings = daemon.path("connector.conf");
    for path in [settings.parent().expect("a folder"), &settings] {
        std::os::unix::fs::chown(path, Some(65534), None).expect("root may");
    }
    faulty(&daemon, &["connector.conf.pid: the pid file cannot be written", "log (key \"logfile\")"]);
}

#[test]
fn what_is_wrong_with_a_pem_file_is_said_in_words() {
    let daemon = Setup::new(Mode::Tls).prepare();
    let [certificate, key] = ["server-cert.pem", "server-key.pem"].map(|file| daemon.path(file));
    let [good_certificate, good_key] = [&certificate, &key].map(|file| fs::read_to_string(file).expect("a file"));
    let der = [&[0x30, 0x82, 1, 0][..], &[7; 256]].concat();
    let spoilt: [(&str, &[u8], &str); 7] = [
        ("server-cert.pem", good_key.as_bytes(), "no certificate (BEGIN CERTIFICATE) in it; there is a private key"),
        ("server-key.pem", good_certificate.as_bytes(), "no private key (BEGIN PRIVATE KEY) in it; there is a certif"),
        ("server-cert.pem", &der, "it is in DER format"),
        ("server-cert.pem", b"", "it is empty"),
        (
            "server-cert.pem",
            &good_certificate.as_bytes()[..200],
            "the END line that belongs to a BEGIN line is missing",
        ),
        (
            "server-cert.pem",
            b"-----BEGIN CERTIFICATE-----\n=-=\n-----END CERTIFICATE-----\n",
            "something else than base64",
        ),
        ("server-cert.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it is damaged"),
    ];
    for (file, text, words) in spoilt {
        fs::write(daemon.path(file), text).expect("a file");
        faulty(&daemon, &[file, words]);
        fs::write(&certificate, &good_certificate).expect("a file");
        fs::write(&key, &good_key).expect("a file");
    }
    fs::write(&certificate, &good_certificate).expect("a file");
    assert_eq!(daemon.command(&["check"]).status, 0);
}

#[test]
fn what_is_wrong_with_stored_mappings_is_said_in_words() {
    let daemon = Setup::new(Mode::Plain).prepare();
    for (text, words) in [
        ("[]", "line 1, column 2: found a list; expected an object like {\"mappings\": [...]}"),
        ("{}", "line 1, column 2: the key \"mappings\" is missing"),
        ("", "line 1, column 0: the text ends too early"),
        ("{\"mappings\":[1]}", "found 1; expected an object with a mapping's fields"),
        ("{\"mappings\":[{\"id\":\"a\",\"port1\":70000}]}", "found 70000; expected a whole number, 0 to 65535"),
    ] {
        fs::write(daemon.path("configs.json"), text).expect("a file");
        faulty(&daemon, &["configs.json", words, "the file was not changed"]);
    }
}

/// What `check` and the log of a daemon that starts all the same have to say.
#[track_caller]
fn warned(setup: Setup, status: i32, words: &[&str]) {
    let mut daemon = setup.prepare();
    let said = daemon.command(&["check"]);
    assert_eq!(said.status, status, "{said:?}");
    daemon.start();
    let log = daemon.log();
    for word in words {
        assert!(said.err.contains(word), "{said:?} does not say {word}");
        assert!(log.lines().any(|line| line.contains("[WARN]") && line.contains(word)), "{log} does not say {word}");
    }
}

#[test]
fn settings_that_are_allowed_and_seldom_meant_are_warned_of() {
    let open = "everybody who can connect to port";
    warned(Setup::new(Mode::Plain), 0, &[open, "set `controllers`, `controllerca` or `apitoken`"]);
    warned(Setup::new(Mode::Tls), 0, &[open]);
    warned(Setup::new(Mode::Plain).without("listen"), 0, &["`dev` without `listen`", open]);
    warned(Setup::new(Mode::Plain).first_ports(1), EX_CONFIG, &["a mapping takes two, and 1 is left"]);
    warned(Setup::new(Mode::Plain).set("connections", 10_000_000), 0, &["`connections` is 10000000, but the limit of"]);
    let closed = Setup::new(Mode::Tls).set("controllers", vec!["127.0.0.1"]).prepare();
    let said = closed.command(&["check"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
}

#[test]
fn buffers_that_there_is_no_memory_for_are_named_with_their_size() {
    let daemon = Setup::new(Mode::Plain).set("buffers", 4_000_000_000_u64).prepare();
    refused_by_both(&daemon, EX_CONFIG, &["no memory for 4000000000 relay buffers, 250000000 MiB", "\"buffers\""]);
}
