//! What the broker says, one JSON object a message (docs/protocol.md, "Broker").

use super::entries::Caller;
use serde::Serialize;

/// The peer is known, and the other one is not there yet.
pub(super) const WAIT: &str = r#"{"status":"ok"}"#;
/// There is no entry of this id, or its passkey is another.
pub(super) const NOT_AUTHORIZED: &str = r#"{"status":"not authorized"}"#;

/// Tells `to` where to find `other`. `delay`: it is the second of the two.
///
/// No longer than the other's request and what stands around it: JSON strings do not grow on their way through.
pub(crate) fn connect(to: &Caller, other: &Caller, delay: bool) -> String {
    #[derive(Serialize)]
    struct Connect<'a> {
        status: &'static str,
        listen: u16,
        connect: u16,
        privateip: &'a str,
        publicip: String,
        certificate: &'a str,
        delay: bool,
    }
    let connect = Connect {
        status: "connect",
        listen: to.address.port(),
        connect: other.address.port(),
        privateip: &other.local_ip,
        publicip: other.address.ip().to_string(),
        certificate: &other.certificate,
        delay,
    };
    serde_json::to_string(&connect).expect("strings, numbers and booleans always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_the_other() {
        let caller = |ip: [u8; 4], port, local_ip: &str, certificate: &str| Caller {
            address: (ip, port).into(),
            local_ip: local_ip.to_owned(),
            certificate: certificate.to_owned(),
        };
        let first = caller([192, 0, 2, 1], 4000, "10.0.0.1", "first's \"\u{1}\"");
        let second = caller([198, 51, 100, 2], 5000, "10.0.0.2", "second's");
        assert_eq!(
            connect(&first, &second, false),
            r#"{"status":"connect","listen":4000,"connect":5000,"privateip":"10.0.0.2","publicip":"198.51.100.2","certificate":"second's","delay":false}"#
        );
        assert_eq!(
            connect(&second, &first, true),
            r#"{"status":"connect","listen":5000,"connect":4000,"privateip":"10.0.0.1","publicip":"192.0.2.1","certificate":"first's \"\u0001\"","delay":true}"#
        );
    }
}
