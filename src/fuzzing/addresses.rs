//! Addresses and ports as people write them: of Controllers, of targets, of mappings.

use crate::agent::target::Target;
use crate::cidr::Cidr;
use crate::ports::{PortRange, PortSet};

pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(range) = text.parse::<Cidr>() {
        let written = range.to_string();
        assert_eq!(written.parse(), Ok(range), "{written}");
        let network = written.split('/').next().expect("an address");
        assert!(range.contains(network.parse().expect("an address")), "{written}");
    }
    if let Ok(target) = text.parse::<Target>() {
        assert!(target.port != 0 && !target.host.is_empty(), "{target:?}");
        assert_eq!(target.to_string().parse(), Ok(target.clone()));
        if target.is_address() {
            let found = target.look_up().expect("an address needs no lookup");
            assert!(found.len() == 1 && found[0].port() == target.port, "{found:?}");
        }
    }
    if let Ok(range) = text.parse::<PortRange>() {
        let range = std::slice::from_ref(&range);
        let ports = PortSet::usable(range, &[]);
        assert!(!ports.is_empty() && !ports.contains(0), "{range:?}");
        assert!(PortSet::usable(range, range).is_empty());
    }
}
