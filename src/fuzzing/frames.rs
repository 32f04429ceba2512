//! Version 2: hellos, OPEN, frames in any order; and what two ends make of each other that keep to the rules.

use super::pieces;
use crate::limits::FRAME;
use crate::wire::v2::channel::{Channel, Event, Fault, Role};
use crate::wire::v2::frame::{PING, Reason};
use crate::wire::v2::hello::{self, Parsed};
use crate::wire::v2::open::Open;

pub fn body(bytes: &[u8]) {
    if let Parsed::Hello(said) = hello::parse(bytes) {
        assert_eq!(hello::parse(&said.encode()), Parsed::Hello(said));
    }
    if let Some(open) = Open::decode(bytes) {
        let again = Open::decode(&open.encode()).expect("what was understood can be said");
        assert_eq!((again.over_tls, again.tls, again.server_name), (open.over_tls, open.tls, open.server_name));
    }
    for role in [Role::Connector, Role::Agent, Role::CalledConnector, Role::CallingAgent] {
        let at_once = hear(role, [bytes].into_iter());
        assert_eq!(hear(role, pieces(bytes)), at_once, "it depends on how the bytes are cut");
    }
    converse([Role::Connector, Role::Agent], bytes);
    converse([Role::CallingAgent, Role::CalledConnector], bytes);
}

/// What comes of the bytes: each event with where it ends, all payload, and the fault that ends the connection.
type Heard = (Vec<(usize, Event)>, Vec<u8>, Option<Fault>);

fn hear<'a>(role: Role, pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut channel = Channel::new(role, FRAME);
    let opens = matches!(role, Role::Connector | Role::CallingAgent);
    if opens {
        channel.open(&Open::default());
    }
    let (mut events, mut payload, mut taken) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            let could_hear = channel.hears();
            let (used, event) = match channel.take(&piece[at..]) {
                Ok(taken) => taken,
                Err(fault) => return (events, payload, Some(fault)),
            };
            assert!(used > 0 && at + used <= piece.len());
            (at, taken) = (at + used, taken + used);
            match event {
                None => assert_eq!(at, piece.len(), "bytes are left over, and nothing has come"),
                Some(Event::Payload(count)) => {
                    assert!(could_hear && !channel.is_pending() && count <= used, "payload outside a session");
                    payload.extend(&piece[at - count..at]);
                }
                Some(event) => {
                    match event {
                        Event::Open(_) => {
                            channel.accept();
                            if channel.is_pending() {
                                channel.answer();
                            }
                        }
                        // As whoever ends a session does: the next one may begin.
                        Event::Fin | Event::Reset(_) if channel.sends() => drop(channel.fin()),
                        // So that the bytes decide what we do, too.
                        Event::Ping if channel.sends() || channel.hears() => drop(channel.reset(Reason::Ended)),
                        Event::Pong if opens && channel.is_over() => drop(channel.open(&Open::default())),
                        _ => {}
                    }
                    events.push((taken, event));
                }
            }
        }
    }
    (events, payload, None)
}

/// One end, and what is on its way to it.
struct End {
    channel: Channel,
    incoming: Vec<u8>,
    sessions: u8,
}

/// Each byte is something that one of the two ends does. The first one begins the sessions.
fn converse(roles: [Role; 2], script: &[u8]) {
    let [mut one, mut other] =
        roles.map(|role| End { channel: Channel::new(role, FRAME), incoming: Vec::new(), sessions: 0 });
    for &byte in script {
        let (speaker, listener) = if byte & 1 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        let End { channel, incoming, sessions } = speaker;
        let may_send = channel.sends() && !channel.is_pending();
        let says = match byte >> 1 & 7 {
            0 if byte & 1 == 0 && channel.is_over() => {
                *sessions = sessions.wrapping_add(1);
                channel.open(&Open::default())
            }
            // What is said in a session tells which.
            1 if may_send => [&channel.data((byte >> 4).into())[..], &vec![*sessions; (byte >> 4).into()]].concat(),
            2 if may_send => channel.fin().to_vec(),
            3 if channel.sends() || channel.hears() => channel.reset(Reason::Ended).to_vec(),
            4 if channel.is_pending() && channel.hears() && byte & 1 == 1 => channel.answer().to_vec(),
            5 => PING.to_vec(),
            6 | 7 => {
                let piece: Vec<u8> = incoming.drain(..incoming.len().min((byte >> 4).into())).collect();
                take_in(channel, sessions, &piece);
                Vec::new()
            }
            _ => Vec::new(),
        };
        listener.incoming.extend(says);
    }
}

fn take_in(channel: &mut Channel, sessions: &mut u8, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let (used, event) = channel.take(&bytes[at..]).expect("who keeps to the rules is understood");
        at += used;
        match event {
            Some(Event::Open(_)) => {
                *sessions = sessions.wrapping_add(1);
                channel.accept();
            }
            Some(Event::Payload(count)) => {
                assert!(bytes[at - count..at].iter().all(|byte| byte == sessions), "payload of another session");
            }
            _ => {}
        }
    }
}
