//! `configs.json`: what is loaded is what is written back, and loads again.

use super::assert_is_readable;
use crate::json;
use crate::mapping::Kind;
use crate::store::{compose, parse};

pub fn body(bytes: &[u8]) {
    let mappings = match parse(bytes) {
        Ok(mappings) => mappings,
        Err(error) => return assert_is_readable(&json::explained(&error)),
    };
    for mapping in &mappings {
        assert!(!mapping.id.is_empty());
        assert!(mapping.ports().is_none_or(|[first, second]| first != 0 && second != 0 && first != second));
        let agents = match &mapping.kind {
            Kind::Public { agents, .. } => std::slice::from_ref(agents),
            Kind::Private { sides } => &sides[..],
            Kind::Direct { passkey } => {
                assert!(!passkey.expose().is_empty());
                &[]
            }
        };
        assert!(agents.iter().all(|agents| agents.max_connections > 0 && !agents.passcode.expose().is_empty()));
        assert!(agents.iter().all(|agents| agents.absence.is_none_or(|absence| !absence.is_zero())));
    }
    let mut written = Vec::new();
    compose(&mut written, mappings.iter()).expect("what was loaded can be written");
    assert_eq!(parse(&written).expect("what was written can be loaded"), mappings);
}
