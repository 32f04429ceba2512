//! Sessions of version 2 that are cut off at every byte there is: at the user's socket, at the service's, and between
//! agent and Connector. The next session is right, on the same connection where there still is one.

use crate::agent::frames::authorized;
use crate::harness::frames::{DATA, FIN, PING, frame};
use crate::harness::{
    AgentProgram, Cut, Cutter, End, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Service, in_both_modes,
};
use crate::harness::{Daemon, wait_until};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};

const GREETING: &[u8] = b"220 ready\r\n";

fn request() -> Vec<u8> {
    Payload::new(3).take(40)
}

fn answer() -> Vec<u8> {
    [GREETING, &request()].concat()
}

/// A service that speaks first, and answers with what it gets. It tells what it has heard, and whether that had a proper
/// end.
fn service() -> (Service, Receiver<(Vec<u8>, bool)>) {
    let (sender, told) = channel();
    let service = Service::start(move |mut stream: TcpStream| {
        let (mut heard, mut bytes) = (Vec::new(), [0; 100]);
        let mut answered = stream.write_all(GREETING);
        let ended = loop {
            match stream.read(&mut bytes) {
                Ok(0) => break answered.is_ok(),
                Ok(count) => {
                    heard.extend(&bytes[..count]);
                    answered = answered.and_then(|()| stream.write_all(&bytes[..count]));
                }
                Err(_) => break false,
            }
        };
        let _ = sender.send((heard, ended));
    });
    (service, told)
}

/// What a user hears up to the end, whatever happens.
fn hear_all(user: &Peer) -> (Vec<u8>, End) {
    let mut heard = Vec::new();
    loop {
        match user.hear(PATIENCE) {
            Heard::Message(bytes) => heard.extend(bytes),
            Heard::Ended(end) => return (heard, end),
            Heard::Silence => panic!("no end after {} bytes", heard.len()),
        }
    }
}

/// A user that asks and hears, and whose connection may be cut at any time.
fn ask(user: io::Result<Peer>) -> Option<(Vec<u8>, End)> {
    let user = user.ok()?;
    let _ = user.try_send(&request(), PATIENCE);
    user.finish();
    Some(hear_all(&user))
}

/// Where the connection is that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    User,
    Agent,
    Service,
}

/// Cuts sessions at `place` behind every byte, or every few ones, that goes either way there.
fn cut_everywhere(daemon: &Daemon, place: Place) {
    let (service, told) = service();
    let mapping = daemon.add_public(1);
    let cutter = Cutter::to(match place {
        Place::User => mapping.ports[1],
        Place::Agent => mapping.ports[0],
        Place::Service => service.port,
    });
    let behind = |port| if port == cutter.target { cutter.port } else { port };
    let reached = Mapping { ports: mapping.ports.map(behind), ..mapping.clone() };
    let _agent = AgentProgram::new(daemon, &reached, 0).exposing(behind(service.port), 1).start();
    let is_tls = daemon.mode == Mode::Tls && place != Place::Service;
    // Between agent and Connector, and over TLS, a FIN in the middle is no end of the session.
    let ways = if is_tls || place == Place::Agent { &[Cut::Reset, Cut::Fin][..] } else { &[Cut::Reset] };
    let user = || daemon.dial(reached.ports[1]).connect();
    let mut count = 0;
    for upstream in [true, false] {
        for at in (0..).step_by(if is_tls { 5 } else { 1 }) {
            let way = ways[at % ways.len()];
            let what = format!("{place:?}, {way:?} behind byte {at}, upstream {upstream}");
            cutter.arm(upstream, at, way);
            let heard = ask(user());
            let was_cut = !cutter.disarm();
            if let Some((heard, end)) = &heard {
                assert!(answer().starts_with(heard), "{what}: {heard:?}");
                assert!(*end != End::Clean || *heard == answer(), "{what}: {} bytes and a proper end", heard.len());
            }
            // The next one, on the same connection if that was not the one that was cut.
            let (next, end) = ask(user()).unwrap_or_else(|| panic!("{what}: the next one is not let in"));
            assert_eq!((next, end), (answer(), End::Clean), "the next one after {what}");
            let sessions: Vec<_> = told.try_iter().collect();
            for (bytes, ended) in sessions {
                assert!(request().starts_with(&bytes), "{what}: the service has heard {bytes:?}");
                assert!(!ended || bytes == request(), "{what}: {} bytes for the service and a proper end", bytes.len());
            }
            count += 1;
            if !was_cut {
                assert_eq!(heard, Some((answer(), End::Clean)), "{what}: nothing was cut");
                break;
            }
        }
    }
    println!("{:?}, {place:?}: {count} cuts", daemon.mode);
    if place != Place::Agent {
        assert_eq!(authorized(daemon), 1.0, "{place:?}: one connection for all of them");
    }
    wait_until("nothing is left of them", PATIENCE, || daemon.controller().status(&mapping.id)["users"] == 0);
}

#[test]
fn a_user_may_be_cut_off_at_any_byte() {
    in_both_modes(|daemon| cut_everywhere(daemon, Place::User));
}

#[test]
fn the_connection_of_agent_and_connector_may_be_cut_off_at_any_byte() {
    in_both_modes(|daemon| cut_everywhere(daemon, Place::Agent));
}

#[test]
fn a_service_may_be_cut_off_at_any_byte() {
    in_both_modes(|daemon| cut_everywhere(daemon, Place::Service));
}

#[test]
fn an_agent_may_be_cut_off_at_any_byte() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let frames = [frame(DATA, 1, b"first"), frame(PING, 0, b""), frame(DATA, 1, b"second"), frame(FIN, 1, b"")];
        let stream = frames.concat();
        for cut in 0..=stream.len() {
            let agent = daemon.framed_agent(&mapping);
            let user = daemon.user(&mapping);
            agent.expect_open(1);
            agent.peer.send(&stream[..cut]);
            if cut == stream.len() {
                user.expect(b"firstsecond");
                user.expect_clean_end();
            }
            if cut % 2 == 0 {
                agent.peer.finish()
            } else {
                agent.peer.reset()
            }
            if cut < stream.len() {
                let (heard, end) = hear_all(&user);
                assert!(b"firstsecond".starts_with(&heard[..]));
                assert_ne!(end, End::Clean, "{cut}");
            }
        }
    });
}
