//! PROXY headers: what a proxy says is understood the same in any pieces, and what is understood can be written again.

use crate::wire::proxy_protocol::{Origin, Parsed, Version, parse};

pub fn body(bytes: &[u8]) {
    let whole = parse(bytes);
    let end = if let Parsed::Header { length, .. } = whole { length } else { bytes.len() };
    assert!(end <= bytes.len(), "{whole:?}");
    for at in 0..end {
        let part = parse(&bytes[..at]);
        // What is no header may show late, but a header never becomes another one.
        assert!(part == Parsed::Incomplete || (part == whole && whole == Parsed::Invalid), "{part:?}, then {whole:?}");
    }
    if let Parsed::Header { ends: Some(ends), .. } = whole {
        for (version, tls, server_name) in
            [(Version::One, None, None), (Version::Two, None, None), (Version::Two, Some("TLSv1.3"), Some("a.example"))]
        {
            let header = Origin { ends, tls, server_name }.header(version);
            let Parsed::Header { ends: Some(read), length } = parse(&header) else { panic!("{header:?}") };
            assert_eq!(length, header.len());
            assert_eq!((read.from.port(), read.to.port()), (ends.from.port(), ends.to.port()));
            assert_eq!(read.from.ip().to_canonical(), ends.from.ip().to_canonical());
            assert_eq!(read.to.ip().to_canonical(), ends.to.ip().to_canonical());
        }
    }
}
