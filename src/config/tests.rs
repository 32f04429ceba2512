use super::*;
use std::ffi::OsStr;
use std::fs;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(&layout("/etc/x/iofog-connector.conf"), text.as_bytes())
}

fn layout(settings: impl Into<PathBuf>) -> Layout {
    Layout::new(settings.into(), None, None)
}

fn fixtures(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new(extension)));
    assert!(!files.is_empty());
    files
}

#[test]
fn valid_files_are_taken() {
    for file in fixtures("valid", "conf") {
        if let Err(error) = Config::load(&layout(&file)) {
            panic!("{error}");
        }
    }
}

#[test]
fn examples_are_valid() {
    for example in ["dev.conf", "tls.conf"] {
        Config::load(&layout(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example))).unwrap();
    }
}

/// Beside each invalid file stands a text whose every line the error message must contain.
#[test]
fn invalid_files_are_refused_with_file_place_key_and_expectation() {
    let mut faults = Vec::new();
    for file in fixtures("invalid", "conf") {
        let message = Config::load(&layout(&file)).expect_err(&format!("{} was taken", file.display())).to_string();
        let name = file.file_name().unwrap().to_str().unwrap();
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
        let missing = expected.lines().chain([name, ", line ", ", column "]).filter(|part| !message.contains(part));
        faults.extend(missing.map(|part| format!("{message}: does not say {part:?}")));
        assert!(!message.contains('\n'), "{message:?}: more than one line");
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn absent_keys_have_the_originals_behaviour() {
    let config = parse(r#"{"ports": ["6000-6001"], "broker": 12345, "dev": true}"#).unwrap();
    assert_eq!((config.api_port, config.listen, config.controllers.as_ref()), (8080, None, None));
    assert_eq!(config.address, "127.0.0.1");
    let config = parse(r#"{"ports": ["6000-6001"]}"#).unwrap();
    assert_eq!((config.api_port, config.dev, config.broker), (443, false, None));
}

#[test]
fn files_are_looked_up_beside_the_settings() {
    let config = parse(r#"{"ports": ["6000"], "apitoken": "token", "logfile": "/var/log/x.log"}"#).unwrap();
    assert_eq!(config.api_token, Some(PathBuf::from("/etc/x/token")));
    assert_eq!(config.log_file, Some(PathBuf::from("/var/log/x.log")));
    assert_eq!(config.state_file("configs.json"), PathBuf::from("/etc/x/configs.json"));
    let bare = Config::parse(&layout("dev.conf"), br#"{"ports": ["6000"]}"#).unwrap();
    assert_eq!(bare.state_file("configs.json"), PathBuf::from("./configs.json"));
}

#[test]
fn what_the_daemon_writes_is_in_its_state_folder() {
    let layout = Layout::new("/etc/x/x.conf".into(), Some("/var/lib/x".into()), None);
    let config = Config::parse(&layout, br#"{"ports": ["6000"], "apitoken": "token"}"#).unwrap();
    assert_eq!(config.state_file("configs.json"), PathBuf::from("/var/lib/x/configs.json"));
    assert_eq!(config.api_token, Some(PathBuf::from("/etc/x/token")));
}

#[test]
fn the_daemons_own_ports_are_not_for_mappings() {
    let config = parse(r#"{"ports": ["1-65535"], "exclude": ["1-999"], "broker": 5000, "apiport": 6000}"#).unwrap();
    assert_eq!(config.ports.len(), 65535 - 999 - 2);
    assert!(!config.ports.contains(5000) && !config.ports.contains(6000));
}

#[test]
fn a_missing_file_is_named() {
    let message = Config::load(&layout("/nonexistent/iofog-connector.conf")).unwrap_err().to_string();
    assert!(message.starts_with("/nonexistent/iofog-connector.conf: cannot be read: "), "{message}");
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let old = parse(r#"{"ports": ["6000"], "apiport": 1, "buffers": 2, "controllers": ["::1"]}"#).unwrap();
    let new = parse(r#"{"ports": ["7000"], "apiport": 2, "dev": true, "logfile": "log"}"#).unwrap();
    assert_eq!(old.needs_restart(&new), ["dev", "apiport", "buffers", "logfile"]);
    assert_eq!(old.needs_restart(&old), [""; 0]);
}

#[test]
fn proxies_are_trusted_by_address_and_without_a_restart() {
    let config = parse(r#"{"ports": ["6000-6001"], "trustproxy": ["10.0.0.0/8", "::1"]}"#).unwrap();
    assert!(config.trust_proxy.iter().any(|range| range.contains([10, 1, 2, 3].into())));
    let none = parse(r#"{"ports": ["6000-6001"]}"#).unwrap();
    assert!(none.trust_proxy.is_empty() && none.needs_restart(&config).is_empty());
    for value in [r#""10.0.0.1""#, r#"["10.1.0.0/8"]"#, "true"] {
        let error = parse(&format!(r#"{{"ports": ["6000-6001"], "trustproxy": {value}}}"#)).unwrap_err().to_string();
        assert!(error.contains("trustproxy") && error.contains("expected a list of IP addresses"), "{error}");
    }
}
