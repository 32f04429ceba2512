//! The direct entries, and which of them somebody waits at. Pure: knows no socket and no clock.

use crate::net::reactor::Key;
use crate::secret::Secret;
use std::collections::HashMap;
use std::net::SocketAddr;

/// What a peer says of itself, and where it called from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// As the daemon sees it: of the NAT, most likely.
    pub(crate) address: SocketAddr,
    /// As the peer itself sees it.
    pub(crate) local_ip: String,
    pub(crate) certificate: String,
}

impl Caller {
    /// Whether both are one peer, which has connected again. Its port is another one then.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.certificate, self.address.ip(), &self.local_ip)
            == (&other.certificate, other.address.ip(), &other.local_ip)
    }
}

/// All direct entries, by id.
#[derive(Default)]
pub(super) struct Entries(HashMap<String, Entry>);

struct Entry {
    passkey: Secret,
    waiting: Option<(Key, Caller)>,
}

impl Entries {
    pub(super) fn open(&mut self, id: String, passkey: Secret) {
        self.0.insert(id, Entry { passkey, waiting: None });
    }

    /// Forgets an entry; who waited there is to be closed.
    pub(super) fn close(&mut self, id: &str) -> Option<Key> {
        let (key, _) = self.0.remove(id)?.waiting?;
        Some(key)
    }

    /// Whether an entry of this id has this passkey.
    pub(super) fn admit(&self, id: &str, passkey: &Secret) -> bool {
        self.0.get(id).is_some_and(|entry| entry.passkey == *passkey)
    }

    /// `caller` waits from now on. Nobody may be waiting there.
    pub(super) fn wait(&mut self, id: &str, key: Key, caller: Caller) {
        if let Some(entry) = self.0.get_mut(id) {
            debug_assert!(entry.waiting.is_none(), "the one who waited was not introduced");
            entry.waiting = Some((key, caller));
        }
    }

    /// Who waits at the entry, and no longer does.
    pub(super) fn take(&mut self, id: &str) -> Option<(Key, Caller)> {
        self.0.get_mut(id)?.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(port: u16) -> Caller {
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        Caller { address, local_ip: "10.0.0.1".into(), certificate: "C".into() }
    }

    fn entries() -> Entries {
        let mut entries = Entries::default();
        entries.open("a".into(), Secret::new("key of a"));
        entries.open("b".into(), Secret::new("key of b"));
        entries
    }

    #[test]
    fn only_the_entrys_own_passkey_admits() {
        let entries = entries();
        assert!(entries.admit("a", &Secret::new("key of a")));
        for (id, passkey) in [("a", "key of b"), ("a", ""), ("c", "key of a"), ("", "")] {
            assert!(!entries.admit(id, &Secret::new(passkey)), "{id}, {passkey}");
        }
    }

    #[test]
    fn one_waits_and_is_taken_once() {
        let mut entries = entries();
        assert_eq!(entries.take("a"), None);
        entries.wait("a", 7, caller(1));
        assert_eq!(entries.take("b"), None);
        assert_eq!(entries.take("a"), Some((7, caller(1))));
        assert_eq!(entries.take("a"), None);
        entries.wait("a", 8, caller(2));
        assert_eq!(entries.take("a"), Some((8, caller(2))));
    }

    #[test]
    fn a_peer_is_known_again_by_all_that_it_says_of_itself() {
        assert!(caller(1).is(&caller(2)), "its port is another one");
        let elsewhere = SocketAddr::from(([192, 0, 2, 2], 1));
        for other in [
            Caller { address: elsewhere, ..caller(1) },
            Caller { local_ip: "10.0.0.2".into(), ..caller(1) },
            Caller { certificate: "D".into(), ..caller(1) },
        ] {
            assert!(!caller(1).is(&other));
        }
    }

    #[test]
    fn a_closed_entry_hands_out_who_waited_and_admits_nobody() {
        let mut entries = entries();
        entries.wait("a", 7, caller(1));
        assert_eq!(entries.close("a"), Some(7));
        assert_eq!(entries.close("a"), None);
        assert_eq!(entries.close("b"), None);
        assert!(!entries.admit("a", &Secret::new("key of a")));
        entries.wait("a", 9, caller(3));
        assert_eq!(entries.take("a"), None);
    }
}
