//! Version 2: hellos, OPEN, and frames in any order.

use super::pieces;
use crate::limits::FRAME;
use crate::wire::v2::channel::{Channel, Event, Fault, Role};
use crate::wire::v2::hello::{self, Parsed};
use crate::wire::v2::open::Open;

pub fn body(bytes: &[u8]) {
    if let Parsed::Hello(said) = hello::parse(bytes) {
        assert_eq!(hello::parse(&said.encode()), Parsed::Hello(said));
    }
    if let Some(open) = Open::decode(bytes) {
        let again = Open::decode(&open.encode()).expect("what was understood can be said");
        assert_eq!((again.over_tls, again.tls), (open.over_tls, open.tls));
    }
    for role in [Role::Connector, Role::Agent, Role::CalledConnector, Role::CallingAgent] {
        let at_once = hear(role, [bytes].into_iter());
        assert_eq!(hear(role, pieces(bytes)), at_once, "it depends on how the bytes are cut");
    }
}

/// What comes of the bytes: each event with where it ends, all payload, and the fault that ends the connection.
type Heard = (Vec<(usize, Event)>, Vec<u8>, Option<Fault>);

fn hear<'a>(role: Role, pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut channel = Channel::new(role, FRAME);
    if matches!(role, Role::Connector | Role::CallingAgent) {
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
                    events.push((taken, event));
                    match event {
                        Event::Open(_) => {
                            channel.accept();
                            if channel.is_pending() {
                                channel.answer();
                            }
                        }
                        // As whoever ends a session does: the next one may begin.
                        Event::Fin | Event::Reset(_) if channel.sends() => drop(channel.fin()),
                        _ => {}
                    }
                }
            }
        }
    }
    (events, payload, None)
}
