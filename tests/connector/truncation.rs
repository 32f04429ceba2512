//! Who gets less than the other side had to send is told so: FIN without close_notify, or a reset.

use crate::harness::{
    AgentProgram, Daemon, Dial, End, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, Service,
    for_both_versions, in_both_modes, in_both_versions, public_mapping, wait_until,
};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const SENT: u64 = 100_000;

/// How somebody breaks off in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    Reset,
    /// FIN without close_notify.
    Cut,
    /// A record that no key has sealed.
    Forged,
}

pub fn breaks(mode: Mode) -> &'static [Break] {
    match mode {
        Mode::Plain => &[Break::Reset],
        Mode::Tls => &[Break::Reset, Break::Cut, Break::Forged],
    }
}

impl Break {
    /// The connection, if there still is one.
    pub fn off(self, peer: Peer) -> Option<Peer> {
        match self {
            Self::Reset => {
                peer.reset();
                return None;
            }
            Self::Cut => peer.cut(),
            Self::Forged => peer.forge(),
        }
        Some(peer)
    }
}

/// An end that nobody can take for a proper one.
#[track_caller]
pub fn expect_truncated(peer: &Peer) {
    let end = peer.expect_end_at_last(PATIENCE);
    assert!(matches!(end, End::Cut | End::Reset), "{end:?}");
}

/// `from` breaks off; `to` gets what was said before, and no proper end.
#[track_caller]
fn expect_broken_off(daemon: &Daemon, mapping: &Mapping, side: usize, (from, to): (Peer, Peer), how: Break) {
    let counter = ["bytesport1", "bytesport2"][side];
    let bytes = || daemon.controller().status(&mapping.id)[counter].as_u64().expect("a number");
    let before = bytes();
    Payload::new(1).send(&from, SENT);
    wait_until("the daemon has passed it on", PATIENCE, || bytes() == before + SENT);
    let kept = how.off(from);
    Payload::new(1).receive(&to, SENT);
    expect_truncated(&to);
    drop(kept);
}

#[test]
fn a_user_of_an_agent_that_breaks_off_gets_no_proper_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        for how in breaks(daemon.mode) {
            expect_broken_off(daemon, &mapping, 0, daemon.pair(&mapping), *how);
        }
    });
}

#[test]
fn an_agent_of_a_user_that_breaks_off_gets_no_proper_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        for how in breaks(daemon.mode).iter().filter(|how| **how != Break::Reset) {
            let (agent, user) = daemon.pair(&mapping);
            expect_broken_off(daemon, &mapping, 1, (user, agent), *how);
        }
        // A user's reset ends the session at once.
        let (agent, user) = daemon.pair(&mapping);
        user.reset();
        expect_truncated(&agent);
    });
}

#[test]
fn neither_side_of_a_private_pipe_gets_a_proper_end_for_a_broken_one() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(4);
        for side in [0, 1] {
            for how in breaks(daemon.mode) {
                let pair = (daemon.agent_on(&mapping, side), daemon.agent_on(&mapping, 1 - side));
                pair.0.send(b"hello");
                pair.1.expect(b"hello");
                expect_broken_off(daemon, &mapping, side, pair, *how);
            }
        }
    });
}

#[test]
fn a_user_of_an_absent_agent_gets_no_proper_end() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add(&public_mapping(1, 500)));
        expect_truncated(&user);
        expect_truncated(&agent);
    });
}

#[test]
fn a_reset_that_a_write_finds_first_is_a_broken_end_too() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        // The daemon reads nothing of it before it has something to write.
        daemon.freeze();
        agent.send(b"half an answer");
        user.send(b"more");
        agent.reset();
        daemon.thaw();
        expect_truncated(&user);
    });
}

#[test]
fn a_session_that_is_interrupted_by_a_removal_or_a_stop_has_no_proper_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let (agent, user) = daemon.pair(&mapping);
        daemon.controller().remove(&mapping);
        expect_truncated(&user);
        expect_truncated(&agent);
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        assert_eq!(daemon.terminate().code(), Some(0));
        expect_truncated(&user);
        expect_truncated(&agent);
    });
}

#[test]
fn not_even_a_crash_looks_like_a_proper_end() {
    in_both_modes(|daemon| {
        let (agent, user) = daemon.pair(&daemon.add_public(1));
        agent.send(b"both have heard each other");
        user.expect(b"both have heard each other");
        daemon.kill();
        expect_truncated(&user);
        expect_truncated(&agent);
    });
}

#[test]
fn who_ends_properly_is_answered_properly() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let (agent, user) = daemon.pair(&mapping);
        agent.finish();
        user.expect_clean_end();
        user.finish();
        agent.expect_clean_end();
        if daemon.mode == Mode::Tls {
            let (agent, user) = daemon.pair(&mapping);
            user.finish();
            agent.expect_clean_end();
            user.expect_clean_end();
        }
    });
}

#[test]
fn who_ends_in_the_middle_of_listening_gets_no_proper_end() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let (agent, user) = daemon.pair(&mapping);
        // Until nothing takes any more: the daemon has unread bytes.
        while user.send_within(&[0; 16_000], SILENCE) {}
        agent.finish();
        user.expect_clean_end();
        expect_truncated(&agent);
    });
}

#[test]
fn what_broke_in_the_turn_in_which_it_came_is_counted() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let (agent, user) = daemon.pair(&mapping);
        daemon.freeze();
        Payload::new(1).send(&agent, 65_536);
        agent.reset();
        daemon.thaw();
        let mut heard = Payload::new(1);
        while let Heard::Message(bytes) = user.hear(PATIENCE) {
            heard.check(&bytes);
        }
        let status = daemon.controller().status(&mapping.id);
        assert_eq!(status["bytesport1"].as_u64(), Some(heard.position()), "{status}");
        assert!(heard.position() > 0);
    });
}

/// A service that hands its connections to the test.
fn handing_over() -> (Service, Receiver<TcpStream>) {
    let (sender, connections): (Sender<TcpStream>, _) = channel();
    let service = Service::start(move |stream| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let _ = sender.send(stream);
    });
    (service, connections)
}

/// A user, and the service's end of its session.
fn session(daemon: &Daemon, mapping: &Mapping, connections: &Receiver<TcpStream>) -> (Peer, TcpStream) {
    let user = daemon.user(mapping);
    user.send(b"hello");
    let mut local = connections.recv_timeout(PATIENCE).expect("a connection");
    local.read_exact(&mut [0; 5]).expect("hello");
    (user, local)
}

#[track_caller]
fn expect_reset(mut local: TcpStream, before: &[u8]) {
    let mut heard = Vec::new();
    let end = local.read_to_end(&mut heard);
    assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!(heard, before);
}

#[test]
fn a_broken_end_goes_through_the_agent_program_both_ways() {
    in_both_versions(|daemon, version| {
        let (service, connections) = handing_over();
        let mapping = daemon.add_public(4);
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 4).start();

        let (user, mut local) = session(daemon, &mapping, &connections);
        local.write_all(b"half an answer").expect("a connection");
        user.expect(b"half an answer");
        socket2::SockRef::from(&local).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(local);
        expect_truncated(&user);

        for how in breaks(daemon.mode) {
            let (user, local) = session(daemon, &mapping, &connections);
            let kept = how.off(user);
            expect_reset(local, b"");
            drop(kept);
        }

        let (user, local) = session(daemon, &mapping, &connections);
        drop(local);
        user.expect_clean_end();
    });
}

#[test]
fn neither_end_of_a_killed_connector_or_agent_looks_proper() {
    for_both_versions(|mode, version| {
        let mut daemon = crate::harness::Setup::new(mode).start();
        let (service, connections) = handing_over();
        let mapping = daemon.add_public(4);
        let mut agent = AgentProgram::new(&daemon, &mapping, 0).speaking(version).exposing(service.port, 4).start();
        for killed in [true, false] {
            let (user, local) = session(&daemon, &mapping, &connections);
            if killed {
                agent.kill()
            } else {
                assert_eq!(agent.terminate().code(), Some(0))
            }
            expect_reset(local, b"");
            expect_truncated(&user);
            agent.respawn();
        }
        wait_until("the agent is back", PATIENCE, || daemon.controller().status(&mapping.id)["free"] == 4);
        let (_user, mut local) = session(&daemon, &mapping, &connections);
        local.write_all(b"to nobody").expect("a connection");
        daemon.kill();
        expect_reset(local, b"");
    });
}

#[test]
fn a_service_that_refuses_is_no_proper_end() {
    in_both_versions(|daemon, version| {
        let refusing = Service::echo().port;
        let mapping = daemon.add_public(1);
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(refusing, 1).start();
        // It may be told so soon that it has not even been told that it is connected.
        if let Ok(user) = daemon.dial(mapping.ports[1]).connect() {
            let _ = user.try_send(b"anybody there?", PATIENCE);
            expect_truncated(&user);
        }
    });
}

#[test]
fn the_service_is_told_when_a_client_that_has_finished_its_question_breaks_off() {
    in_both_modes(|daemon| {
        let (told, ends): (Sender<()>, Receiver<()>) = channel();
        let service = Service::start(move |mut stream| {
            while stream.write_all(&[0; 10_000]).is_ok() {}
            let _ = told.send(());
        });
        let port = crate::agent::listening_port(daemon);
        // The end is heard before it breaks off, or both are heard at once.
        for (versions, at_once) in [["2", "2"], ["1", "2"], ["2", "1"], ["1", "1"]]
            .into_iter()
            .flat_map(|versions| [(versions, false), (versions, true)])
        {
            let mapping = daemon.add_private(2);
            let exposing = AgentProgram::new(daemon, &mapping, 1).exposing(service.port, 2);
            let _exposing = exposing.with(&["--protocol", versions[1]]).start();
            let listening = AgentProgram::new(daemon, &mapping, 0).listening(port, 2);
            let listening = listening.with(&["--protocol", versions[0]]).start();
            let client = Dial::new(port, None).small_buffers().connect().expect("the listening end listens");
            client.send(b"question");
            if at_once {
                client.expect_some();
                listening.freeze();
            }
            client.finish();
            if !at_once {
                client.expect_some();
            }
            client.reset();
            if at_once {
                listening.thaw();
            }
            ends.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the service is not told, {versions:?}, {at_once}"));
        }
    });
}
