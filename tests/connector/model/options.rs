//! Options of a mapping (docs/protocol.md, "Options"), and what follows from them.

use super::op::Random;
use crate::harness::{Mode, Peer};
use serde_json::{Value, json};

/// Where users come from. The last one is not in `allow`.
pub const ADDRESSES: [[u8; 4]; 3] = [[127, 0, 0, 1], [127, 7, 0, 9], [127, 9, 9, 9]];

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    plain: bool,
    /// Version of the PROXY protocol.
    proxy: Option<u8>,
    allow: bool,
    pub max_users: Option<usize>,
    pub wait_time: Option<u64>,
    idle: bool,
    pub named: bool,
    /// Which of the fixed ports.
    pub fixed: Option<u16>,
}

impl Options {
    /// Half of the mappings have none.
    pub fn random(random: &mut Random) -> Self {
        if random.one_in(2) {
            return Self::default();
        }
        Self {
            plain: random.one_in(4),
            proxy: random.one_in(4).then(|| 1 + random.below(2) as u8),
            allow: random.one_in(4),
            max_users: random.one_in(5).then(|| 1 + random.below(2)),
            wait_time: random.one_in(4).then(|| [0, 30, 60][random.below(3)]),
            idle: random.one_in(5),
            named: random.one_in(4),
            fixed: random.one_in(4).then(|| random.below(4) as u16),
        }
    }

    /// A private mapping has no users.
    pub fn without_users(self) -> Self {
        Self { idle: self.idle, named: self.named, fixed: self.fixed, ..Self::default() }
    }

    /// Adds them to the JSON of a mapping.
    pub fn add_to(&self, mapping: &mut Value, name: &str, ports: Option<[u16; 2]>) {
        let mut set = |key: &str, value: Option<Value>| {
            value.into_iter().for_each(|value| mapping[key] = value);
        };
        set("users", self.plain.then(|| json!("plain")));
        set("proxyprotocol", self.proxy.map(|version| json!(format!("v{version}"))));
        set("allow", self.allow.then(|| json!(["127.0.0.1", "127.7.0.0/16"])));
        set("maxusers", self.max_users.map(|most| json!(most)));
        set("waittime", self.wait_time.map(|seconds| json!(seconds)));
        set("idletimeout", self.idle.then(|| json!(3600)));
        set("name", self.named.then(|| json!(name)));
        set("port1", ports.map(|ports| json!(ports[0])));
        set("port2", ports.map(|ports| json!(ports[1])));
    }

    pub fn users_have_tls(&self, mode: Mode) -> bool {
        mode == Mode::Tls && !self.plain
    }

    pub fn allows(&self, from: [u8; 4]) -> bool {
        !self.allow || from != ADDRESSES[2]
    }

    /// Agents are told of a user, whether it says something or not.
    pub fn introduces(&self) -> bool {
        self.proxy.is_some()
    }

    /// What stands before a user's first byte.
    pub fn header(&self, user: &Peer, port: u16, mode: Mode) -> Vec<u8> {
        let from = user.local();
        match self.proxy {
            None => Vec::new(),
            Some(1) => format!("PROXY TCP4 {} 127.0.0.1 {} {port}\r\n", from.ip(), from.port()).into_bytes(),
            Some(_) => {
                let of_tls = b"\x02\0\x09localhost\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3";
                let tls: &[u8] = if self.users_have_tls(mode) { of_tls } else { b"" };
                let ends = [address(user), vec![127, 0, 0, 1], from.port().to_be_bytes().to_vec()].concat();
                let length = [0, 12 + tls.len() as u8];
                [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &ends, &port.to_be_bytes(), tls].concat()
            }
        }
    }

    /// The OPEN of a user.
    pub fn open(&self, user: &Peer, port: u16, mode: Mode) -> Vec<u8> {
        let tls = self.users_have_tls(mode);
        let parts: &[u8] = if tls { b"\x01\x07TLSv1.3\x02\x09localhost" } else { b"" };
        let from = [address(user), user.local().port().to_be_bytes().to_vec()].concat();
        [&[4, u8::from(tls)], &from[..], &[127, 0, 0, 1], &port.to_be_bytes(), parts].concat()
    }
}

fn address(user: &Peer) -> Vec<u8> {
    match user.local().ip() {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        other => panic!("{other} is none of ours"),
    }
}
