//! `iofog-connector.conf`.

use super::assert_is_readable;
use crate::config::Config;
use crate::layout::Layout;

pub fn body(bytes: &[u8]) {
    let layout = Layout::new("/etc/iofog-connector.conf".into(), None, None);
    let config = match Config::parse(&layout, bytes) {
        Ok(config) => config,
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("/etc/iofog-connector.conf, line "), "{error}");
            return assert_is_readable(&error);
        }
    };
    assert!(!config.ports.is_empty() && !config.ports.contains(0));
    for own in config.broker.into_iter().chain([config.api_port]) {
        assert!(own != 0 && !config.ports.contains(own), "{own} is the daemon's own");
    }
    assert_ne!(config.broker, Some(config.api_port));
    assert!(config.connections != Some(0) && config.buffers != Some(0));
    assert_eq!(config.needs_restart(&config), [""; 0]);
    let spaced = [b"\n", bytes, b" "].concat();
    assert_eq!(Config::parse(&layout, &spaced).expect("white space means nothing"), config);
}
