//! A Connector that the test plays, for an agent under test.

use super::frames::{Frames, HELLO};
use super::{AgentProgram, Mode, PATIENCE, Peer, test_certificate};
use rustls::ServerConfig;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Begins like a hello, with the token missing.
const HELLO_WITHOUT_TOKEN: usize = HELLO.len() - 8;

pub struct PlayedConnector {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    passcode: String,
}

impl PlayedConnector {
    pub fn new(mode: Mode) -> Self {
        Self::at(mode, 0, "0f3c7d9e-1a2b-4c3d-8e4f-5a6b7c8d9e0f")
    }

    /// At a port that may have been a daemon's, with the passcode of its mapping.
    pub fn at(mode: Mode, port: u16, passcode: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let tls = (mode == Mode::Tls).then(|| test_certificate().server());
        Self { listener, tls, passcode: passcode.to_owned() }
    }

    /// An agent for it, which sends no heartbeats.
    pub fn agent(&self) -> AgentProgram {
        self.agent_with(&["--heartbeat", "0"])
    }

    /// An agent for it, with these options.
    pub fn agent_with(&self, options: &[&str]) -> AgentProgram {
        let connector = self.listener.local_addr().expect("it is bound").to_string();
        let agent = AgentProgram::bare(&self.passcode).with(&["--connector", &connector]).with(options);
        match self.tls {
            None => agent.with(&["--dev"]),
            Some(_) => agent.trusting(&test_certificate().chain),
        }
    }

    pub fn passcode(&self) -> &[u8] {
        self.passcode.as_bytes()
    }

    /// The agent's next connection, within `patience`; over TLS its handshake is complete.
    pub fn accept_within(&self, patience: Duration) -> Option<Peer> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket");
                    if let Ok(peer) = Peer::accepted(stream, self.tls.clone()) {
                        return Some(peer);
                    }
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
        None
    }

    #[track_caller]
    pub fn accept(&self) -> Peer {
        self.accept_within(PATIENCE).expect("a connection of the agent")
    }

    /// The agent's next connection, and what it says at once.
    #[track_caller]
    pub fn greeted(&self) -> (Peer, Greeting) {
        let peer = self.accept();
        let said = peer.expect_some();
        (peer, Greeting::of(&said, &self.passcode))
    }

    /// The next connection, on which both have said their hellos.
    #[track_caller]
    pub fn framed(&self) -> Frames {
        match self.greeted() {
            (peer, Greeting::Hello(hello)) => {
                peer.send(b"AUTHORIZED");
                peer.send(&hello);
                Frames::new(peer)
            }
            (_, other) => panic!("{other:?} instead of a hello"),
        }
    }

    /// The next connection, on which the agent has been let in by the rules of version 1.
    #[track_caller]
    pub fn unframed(&self) -> Peer {
        match self.greeted() {
            (peer, Greeting::Bare) => {
                peer.send(b"AUTHORIZED");
                peer
            }
            (_, other) => panic!("{other:?} instead of nothing but the passcode"),
        }
    }
}

/// What an agent says at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The passcode.
    Bare,
    /// The preamble of dev mode before it.
    Preamble,
    /// A hello behind it, which is also the right answer.
    Hello(Vec<u8>),
}

impl Greeting {
    #[track_caller]
    fn of(said: &[u8], passcode: &str) -> Self {
        if said == passcode.as_bytes() {
            return Self::Bare;
        }
        if said == [b"iofog/1 dev mode", passcode.as_bytes()].concat() {
            return Self::Preamble;
        }
        let hello = said.strip_prefix(passcode.as_bytes()).unwrap_or_else(|| panic!("{said:?}"));
        let mut expected = HELLO[..HELLO_WITHOUT_TOKEN].to_vec();
        // Whether it calls.
        expected[9] = hello[9] & 1;
        assert_eq!((hello.len(), &hello[..HELLO_WITHOUT_TOKEN]), (HELLO.len(), &expected[..]));
        Self::Hello(hello.to_vec())
    }
}
