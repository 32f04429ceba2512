//! Mappings as a Controller opens them, and the agents and users that come to their ports.

use super::controller::form;
use super::{Answer, Controller, Daemon, Peer};
use serde_json::{Value, json};

/// A mapping that the daemon opened. Port1 comes first in everything.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub id: String,
    pub ports: [u16; 2],
    pub passcodes: [String; 2],
}

impl Mapping {
    fn from_answer(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("no {key} in {json}")).to_owned();
        let port = |key: &str| json[key].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        assert_eq!(json["status"], "ok", "{answer:?}");
        Self {
            id: text("id"),
            ports: [port("port1"), port("port2")],
            passcodes: [text("passcode1"), text("passcode2")],
        }
    }
}

/// The JSON of a public mapping.
pub fn public_mapping(connections: u32, absence_ms: u32) -> Value {
    json!({"type": "public", "maxconnections": connections, "heartbeatabsencethreshold": absence_ms})
}

/// The JSON of a private mapping with the same limits on both sides.
pub fn private_mapping(connections: u32, absence_ms: u32) -> Value {
    json!({
        "type": "private",
        "maxconnectionsport1": connections,
        "maxconnectionsport2": connections,
        "heartbeatabsencethresholdport1": absence_ms,
        "heartbeatabsencethresholdport2": absence_ms,
    })
}

impl Controller {
    /// Opens a mapping.
    #[track_caller]
    pub fn add(&self, mapping: &Value) -> Mapping {
        Mapping::from_answer(&self.post("/api/v2/mapping/add", &form("mapping", &mapping.to_string())))
    }

    #[track_caller]
    pub fn remove(&self, mapping: &Mapping) {
        let answer = self.post("/api/v2/mapping/remove", &form("mappingid", &mapping.id));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    #[track_caller]
    pub fn status(&self, id: &str) -> Value {
        self.post("/api/v2/status", &form("mappingid", id)).json()
    }
}

impl Daemon {
    /// Opens a public mapping whose agents may be silent for ever.
    #[track_caller]
    pub fn add_public(&self, connections: u32) -> Mapping {
        self.add(&public_mapping(connections, 0))
    }

    /// Opens a private mapping whose agents may be silent for ever.
    #[track_caller]
    pub fn add_private(&self, connections: u32) -> Mapping {
        self.add(&private_mapping(connections, 0))
    }

    #[track_caller]
    pub fn add(&self, mapping: &Value) -> Mapping {
        let mapping = self.controller().add(mapping);
        mapping.passcodes.iter().for_each(|passcode| self.keep_secret(passcode));
        mapping
    }

    /// An authorized agent on port1.
    #[track_caller]
    pub fn agent(&self, mapping: &Mapping) -> Peer {
        self.agent_on(mapping, 0)
    }

    /// An authorized agent on port1 (0) or port2 (1).
    #[track_caller]
    pub fn agent_on(&self, mapping: &Mapping, side: usize) -> Peer {
        let agent = self.stranger(mapping, side);
        agent.authorize(mapping, side);
        agent
    }

    /// A connection to an agents' port that has not sent a byte (but finished its TLS handshake).
    #[track_caller]
    pub fn stranger(&self, mapping: &Mapping, side: usize) -> Peer {
        self.dial(mapping.ports[side]).connect().expect("a connection to an agents' port")
    }

    /// A user of a public mapping that has not sent a byte.
    #[track_caller]
    pub fn user(&self, mapping: &Mapping) -> Peer {
        self.dial(mapping.ports[1]).connect().expect("a connection to the users' port")
    }

    /// An agent and a user that are joined; `hello` went from the user to the agent.
    #[track_caller]
    pub fn pair(&self, mapping: &Mapping) -> (Peer, Peer) {
        let agent = self.agent(mapping);
        let user = self.user(mapping);
        join(&agent, &user);
        (agent, user)
    }

    /// Like [`Daemon::pair`], with kernel buffers so small that back-pressure is felt soon.
    #[track_caller]
    pub fn narrow_pair(&self, mapping: &Mapping) -> (Peer, Peer) {
        let connect = |port| self.dial(port).small_buffers().connect().expect("a connection");
        let [agent, user] = mapping.ports.map(connect);
        agent.authorize(mapping, 0);
        join(&agent, &user);
        (agent, user)
    }
}

impl Peer {
    /// Shows the passcode and is let in.
    #[track_caller]
    pub fn authorize(&self, mapping: &Mapping, side: usize) {
        self.send(mapping.passcodes[side].as_bytes());
        self.expect_message(b"AUTHORIZED");
    }
}

/// Sends `hello` from a user to the only free agent.
#[track_caller]
pub fn join(agent: &Peer, user: &Peer) {
    user.send(b"hello");
    agent.expect(b"hello");
}
