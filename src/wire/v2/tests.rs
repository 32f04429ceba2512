//! Two channels talk over a stream that is cut anywhere; and illegal frames.

use super::channel::{Channel, Event, Fault, Role};
use super::frame::{self, Header, Reason, header, kind};
use super::hello::{self, Hello, Parsed};
use super::open::Open;
use crate::limits::FRAME;
use crate::wire::proxy_protocol::Ends;
use std::collections::VecDeque;

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// One end, what is on its way to it, and what it knows of the session.
struct End {
    channel: Channel,
    incoming: VecDeque<u8>,
    /// Payload that was sent in each session; the last one is the one that is.
    sent: Vec<Vec<u8>>,
    /// Payload that was heard in this one.
    heard: Vec<u8>,
}

impl End {
    fn new(role: Role) -> Self {
        let channel = Channel::new(role, FRAME);
        Self { channel, incoming: VecDeque::new(), sent: vec![Vec::new()], heard: Vec::new() }
    }

    fn begin(&mut self) {
        self.sent.push(Vec::new());
        self.heard.clear();
    }

    /// Takes in a piece of what is on its way.
    fn hear(&mut self, piece: usize, other: &mut Self) {
        let bytes: Vec<u8> = self.incoming.drain(..piece.min(self.incoming.len())).collect();
        let mut at = 0;
        while at < bytes.len() {
            let (used, event) = self
                .channel
                .take(&bytes[at..])
                .unwrap_or_else(|fault| panic!("{fault:?} of {:?} at {:?}", &bytes[at..], self.channel));
            at += used;
            match event {
                Some(Event::Payload(count)) => self.heard.extend(&bytes[at - count..at]),
                Some(Event::Open(_)) => {
                    self.channel.accept();
                    self.begin();
                }
                Some(Event::Fin) if self.channel.is_complete() => {
                    assert_eq!(self.heard, other.sent[self.sent.len() - 1], "FIN stands behind all payload");
                }
                Some(Event::Reset(_)) if self.channel.sends() => {
                    other.incoming.extend(self.channel.reset(Reason::Broken));
                }
                _ => {}
            }
            // The other end may not know of the session yet.
            let sent = other.sent.get(self.sent.len() - 1).map(Vec::as_slice).unwrap_or_default();
            assert!(sent.starts_with(&self.heard), "payload of another session, or in another order");
        }
    }

    fn act(&mut self, numbers: &mut Numbers, other: &mut Self) {
        match numbers.below(8) {
            0..=3 if self.channel.sends() => {
                let payload: Vec<u8> = (0..numbers.below(40)).map(|_| numbers.below(256) as u8).collect();
                other.incoming.extend(self.channel.data(payload.len()));
                other.incoming.extend(&payload);
                self.sent.last_mut().expect("one at least").extend(payload);
            }
            4 if self.channel.sends() => other.incoming.extend(self.channel.fin()),
            5 if self.channel.hears() && numbers.below(4) == 0 => {
                other.incoming.extend(self.channel.reset(Reason::Silent));
            }
            6 => other.incoming.extend([frame::PING, frame::PONG][numbers.below(2)]),
            7 => {
                let unknown = Header { kind: 99, may_be_ignored: true, session: 3, length: 5 };
                other.incoming.extend(unknown.encode().into_iter().chain(*b"HELLO"));
            }
            _ => {}
        }
    }
}

#[test]
fn sessions_follow_each_other_and_nothing_of_one_is_heard_in_another() {
    for seed in 1..200_u64 {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut connector, mut agent) = (End::new(Role::Connector), End::new(Role::Agent));
        let mut sessions = 0;
        for _ in 0..3_000 {
            if connector.channel.is_over() && numbers.below(3) == 0 {
                connector.begin();
                agent.incoming.extend(connector.channel.open(&Open::default()));
                sessions += 1;
            }
            connector.act(&mut numbers, &mut agent);
            agent.act(&mut numbers, &mut connector);
            let piece = 1 + numbers.below(30);
            agent.hear(piece, &mut connector);
            let piece = 1 + numbers.below(30);
            connector.hear(piece, &mut agent);
        }
        assert!(sessions > 5, "{sessions} sessions with seed {seed}");
        // Whatever state they are in, a session can always be ended.
        for _ in 0..4 {
            let (to_connector, to_agent) = (connector.incoming.len(), agent.incoming.len());
            agent.hear(to_agent, &mut connector);
            connector.hear(to_connector, &mut agent);
            if connector.channel.sends() || connector.channel.hears() {
                agent.incoming.extend(connector.channel.reset(Reason::Ended));
            }
        }
        assert!(connector.channel.is_over() && agent.channel.is_over(), "seed {seed}");
    }
}

/// What an agent makes of these bytes, cut into pieces of this length.
fn agent_hears(bytes: &[u8], piece: usize) -> Result<(Vec<Event>, Vec<u8>), Fault> {
    let mut channel = Channel::new(Role::Agent, FRAME);
    let (mut events, mut payload) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        let mut at = 0;
        while at < piece.len() {
            let (used, event) = channel.take(&piece[at..])?;
            at += used;
            match event {
                Some(Event::Payload(count)) => payload.extend(&piece[at - count..at]),
                Some(Event::Open(_)) => {
                    channel.accept();
                    events.extend(event);
                }
                _ => events.extend(event),
            }
        }
    }
    Ok((events, payload))
}

#[test]
fn frames_may_be_cut_anywhere() {
    let open = Open {
        ends: Some(Ends { from: ([192, 0, 2, 1], 1234).into(), to: ([192, 0, 2, 2], 80).into() }),
        over_tls: true,
        tls: Some("TLSv1.3"),
        server_name: Some("a.example".into()),
    };
    let mut connector = Channel::new(Role::Connector, FRAME);
    let mut bytes = connector.open(&open);
    bytes.extend(connector.data(5));
    bytes.extend(b"hello");
    bytes.extend(frame::want(513));
    bytes.extend(connector.data(0));
    bytes.extend(frame::PING);
    bytes.extend(connector.fin());
    bytes.extend(frame::BYE);
    let expected = vec![Event::Open(open), Event::Want(513), Event::Ping, Event::Fin, Event::Bye];
    for piece in 1..=bytes.len() {
        assert_eq!(agent_hears(&bytes, piece), Ok((expected.clone(), b"hello".to_vec())), "{piece}");
    }
}

#[test]
fn illegal_frames_end_the_connection() {
    let open = Channel::new(Role::Connector, FRAME).open(&Open::default());
    let after_open = |rest: &[u8]| agent_hears(&[&open, rest].concat(), 7).map(drop);
    let fin = header(kind::FIN, 1, 0);
    for (bytes, fault) in [
        (&header(99, 0, 0)[..], Fault::Unknown(99)),
        (&header(0, 0, 0), Fault::Unknown(0)),
        (&header(kind::OPEN, 2, 2), Fault::Order(kind::OPEN)),
        (&header(kind::DATA, 1, u16::MAX), Fault::Length(kind::DATA)),
        (&[&fin[..], &header(kind::DATA, 1, 1)].concat(), Fault::Order(kind::DATA)),
        (&[&fin[..], &fin].concat(), Fault::Order(kind::FIN)),
        (&header(kind::WANT, 0, 1), Fault::Length(kind::WANT)),
        (&header(kind::RESET, 1, 0), Fault::Length(kind::RESET)),
        (&header(kind::PING, 0, 2000), Fault::Length(kind::PING)),
        // What would be skipped is no longer than what would not.
        (&header(kind::DATA, 7, u16::MAX), Fault::Length(kind::DATA)),
        (&header(kind::FIN, 7, 1025), Fault::Length(kind::FIN)),
        (&header(kind::RESET, 7, 0), Fault::Length(kind::RESET)),
        (&Header { kind: 99, may_be_ignored: true, session: 0, length: 1025 }.encode(), Fault::Length(99)),
    ] {
        assert_eq!(after_open(bytes), Err(fault), "{bytes:?}");
    }
    assert_eq!(agent_hears(&header(kind::OPEN, 7, 2), 1).map(drop), Err(Fault::Order(kind::OPEN)));
    assert_eq!(agent_hears(&[&header(kind::OPEN, 1, 2)[..], &[7, 0]].concat(), 9).map(drop), Err(Fault::Open));
    assert_eq!(Channel::new(Role::Connector, FRAME).take(&open).map(drop), Err(Fault::Order(kind::OPEN)));
    for (role, is_legal) in ROLES.into_iter().zip([false, true, false, true]) {
        let want = Channel::new(role, FRAME).take(&frame::want(1)).map(drop);
        assert_eq!(want, if is_legal { Ok(()) } else { Err(Fault::Order(kind::WANT)) }, "{role:?}");
    }
}

const ROLES: [Role; 4] = [Role::Connector, Role::Agent, Role::CalledConnector, Role::CallingAgent];

/// One end, in the middle of its first session.
fn in_session(role: Role) -> Channel {
    let mut channel = Channel::new(role, FRAME);
    if matches!(role, Role::Connector | Role::CallingAgent) {
        channel.open(&Open::default());
    } else {
        let open = [&header(kind::OPEN, 1, 2)[..], &[0, 0]].concat();
        assert!(matches!(channel.take(&open), Ok((6, Some(Event::Open(_))))));
        channel.accept();
    }
    match role {
        Role::CalledConnector => drop(channel.answer()),
        Role::CallingAgent => drop(channel.take(&header(kind::ACCEPT, 1, 0)).unwrap()),
        Role::Connector | Role::Agent => {}
    }
    assert!(channel.sends() && channel.hears() && !channel.is_pending());
    channel
}

#[test]
fn before_the_first_session_the_number_is_0_and_after_127_it_is_0_again() {
    for role in ROLES {
        let fresh = || Channel::new(role, FRAME);
        for kind in [kind::DATA, kind::FIN] {
            assert_eq!(fresh().take(&header(kind, 0, 0)).map(drop), Err(Fault::Order(kind)), "{role:?}");
            assert_eq!(fresh().take(&header(kind, 1, 0)), Ok((4, None)), "{role:?}");
        }
        for session in [0, 1] {
            let reset = [&header(kind::RESET, session, 1)[..], &[1]].concat();
            assert_eq!(fresh().take(&reset), Ok((5, None)), "{role:?}");
        }
    }
    let (mut connector, mut agent) = (Channel::new(Role::Connector, FRAME), Channel::new(Role::Agent, FRAME));
    for number in (1..=127).chain([0, 1]) {
        let open = connector.open(&Open::default());
        assert_eq!(open[1], number);
        assert!(matches!(agent.take(&open), Ok((_, Some(Event::Open(_))))));
        agent.accept();
        assert_eq!(connector.take(&agent.fin()), Ok((4, Some(Event::Fin))));
        assert_eq!(agent.take(&connector.fin()), Ok((4, Some(Event::Fin))));
    }
}

#[test]
fn what_crosses_our_reset_is_thrown_away_and_what_stands_behind_the_end_of_both_is_illegal() {
    let (fin, reset) = (header(kind::FIN, 1, 0), [&header(kind::RESET, 1, 1)[..], &[1]].concat());
    let data = [&header(kind::DATA, 1, 4)[..], b"late"].concat();
    for role in ROLES {
        for end in [&fin[..], &reset] {
            for has_reset in [true, false] {
                // The peer has ended its half before ours, or has not heard of our end yet.
                for is_first in [true, false] {
                    let what = format!("{role:?}, {end:?}, we reset: {has_reset}, the peer first: {is_first}");
                    let mut channel = in_session(role);
                    if is_first {
                        assert!(channel.take(end).unwrap().1.is_some(), "{what}");
                    }
                    if has_reset {
                        channel.reset(Reason::Broken);
                        let heard = if is_first { Err(Fault::Order(kind::DATA)) } else { Ok((data.len(), None)) };
                        assert_eq!(channel.clone().take(&data), heard, "{what}");
                        // As little of it as of any other frame is heard if it is cut.
                        assert_eq!(channel.clone().take(&data[..5]).is_ok(), !is_first, "{what}");
                    } else {
                        channel.fin();
                    }
                    if !is_first {
                        assert!(channel.take(end).unwrap().1.is_some(), "{what}");
                    }
                    assert!(
                        channel.is_over() && channel.is_complete() == (end == fin && (is_first || !has_reset)),
                        "{what}"
                    );
                    for late in [&data[..], &fin] {
                        assert_eq!(channel.clone().take(late).map(drop), Err(Fault::Order(late[0])), "{what}");
                    }
                    assert_eq!(channel.take(&reset), Ok((5, None)), "{what}");
                }
            }
        }
    }
}

/// A session that an agent has asked for; and the bytes that the Connector has heard of it.
fn called() -> (Channel, Channel) {
    let (mut agent, mut connector) =
        (Channel::new(Role::CallingAgent, FRAME), Channel::new(Role::CalledConnector, FRAME));
    let message = agent.open(&Open::default());
    assert_eq!(connector.take(&message), Ok((message.len(), Some(Event::Open(Open::default())))));
    connector.accept();
    assert!(agent.is_pending() && connector.is_pending());
    (agent, connector)
}

#[test]
fn an_agent_that_calls_is_answered_before_anything_else() {
    let (mut agent, mut connector) = called();
    let answer = connector.answer();
    assert_eq!(agent.take(&answer), Ok((4, Some(Event::Accepted))));
    assert!(!agent.is_pending() && !connector.is_pending());
    for _ in 0..2 {
        assert_eq!(connector.take(&agent.data(0)), Ok((4, None)));
        assert_eq!(connector.take(&agent.fin()), Ok((4, Some(Event::Fin))));
        std::mem::swap(&mut agent, &mut connector);
    }
    assert!(agent.is_over() && connector.is_over());
    assert_eq!(agent.take(&answer).map(drop), Err(Fault::Order(kind::ACCEPT)), "nobody waits for it any more");

    for frame in [header(kind::DATA, 1, 0), header(kind::FIN, 1, 0)] {
        for breaks_off in [false, true] {
            for mut channel in <[Channel; 2]>::from(called()) {
                if breaks_off {
                    channel.reset(Reason::NoPeer);
                }
                assert_eq!(channel.take(&frame).map(drop), Err(Fault::Order(frame[0])), "{breaks_off}");
            }
        }
    }
    let mut serving = Channel::new(Role::Agent, FRAME);
    assert_eq!(serving.take(&header(kind::ACCEPT, 0, 0)).map(drop), Err(Fault::Order(kind::ACCEPT)));
}

#[test]
fn a_call_may_be_taken_back_while_it_is_answered() {
    let (mut agent, mut connector) = called();
    let (answer, reset) = (connector.answer(), agent.reset(Reason::Broken));
    assert_eq!(agent.take(&answer), Ok((4, None)));
    assert_eq!(agent.clone().take(&answer).map(drop), Err(Fault::Order(kind::ACCEPT)), "it comes once");
    // What stands behind the answer has crossed the RESET, too.
    assert_eq!(agent.take(&header(kind::DATA, 1, 0)), Ok((4, None)));
    assert_eq!(connector.take(&reset), Ok((5, Some(Event::Reset(Reason::Broken)))));
    assert_eq!(agent.take(&connector.reset(Reason::Broken)), Ok((5, Some(Event::Reset(Reason::Broken)))));
    assert!(agent.is_over() && connector.is_over());
    let (mut agent_refused, mut refusing) = called();
    agent_refused.take(&refusing.reset(Reason::NoPeer)).unwrap();
    assert_eq!(agent_refused.take(&answer).map(drop), Err(Fault::Order(kind::ACCEPT)), "it was refused");
    let next = agent.open(&Open::default());
    assert!(agent.is_pending() && connector.take(&next).is_ok());
    assert_eq!(agent.take(&answer).map(drop), Err(Fault::Order(kind::ACCEPT)), "of the session before");
}

#[test]
fn an_open_that_is_not_understood_ends_the_connection() {
    let wrong: [&[u8]; 9] = [
        b"",
        b"\0",
        b"\x05\0",
        b"\x11\0\x7f\0\0\x01\0\x01\x7f\0\0\x01\0\x02",
        // Addresses, and an optional part, that are cut off.
        b"\x04\0\x7f\0\0\x01\0\x01\x7f\0\0\x01\0",
        b"\x06\0\x7f\0\0\x01\0\x01\x7f\0\0\x01\0\x02",
        b"\0\0\x01",
        b"\0\0\x63\x02x",
        b"\0\x01\x01\x07TLSv1.3\x02\x05name",
    ];
    for payload in wrong {
        let open = [&header(kind::OPEN, 1, payload.len() as u16)[..], payload].concat();
        let heard = Channel::new(Role::Agent, FRAME).take(&open).map(drop);
        assert_eq!(heard, Err(Fault::Open), "{payload:?}");
    }
}

#[test]
fn what_stands_behind_what_is_known_is_for_later_versions() {
    let mut agent = Channel::new(Role::Agent, FRAME);
    let want = [&header(kind::WANT, 0, 4)[..], &[2, 1, 9, 9]].concat();
    assert_eq!(agent.take(&want), Ok((want.len(), Some(Event::Want(513)))));
    let ping = [&header(kind::PING, 0, 3)[..], b"now"].concat();
    assert_eq!(agent.take(&ping), Ok((ping.len(), Some(Event::Ping))));
}

#[test]
fn what_is_late_is_thrown_away() {
    let mut connector = Channel::new(Role::Connector, FRAME);
    connector.open(&Open::default());
    connector.reset(Reason::Broken);
    let late = [&header(kind::DATA, 1, 4)[..], b"late", &header(kind::RESET, 1, 1), &[1]].concat();
    let (used, event) = connector.take(&late).unwrap();
    assert_eq!((used, event), (late.len(), Some(Event::Reset(Reason::Broken))));
    assert!(connector.is_over());
    connector.open(&Open::default());
    for frame in [&[&header(kind::DATA, 1, 4)[..], b"late"].concat()[..], &header(kind::FIN, 1, 0)] {
        assert_eq!(connector.take(frame), Ok((frame.len(), None)), "of a session that is over");
    }
    assert!(connector.sends() && connector.hears());
}

#[test]
fn a_hello_is_recognised_in_pieces_and_nothing_else_is() {
    let said = Hello { largest: 16_380, calls: false, token: *b"tokenTOK" };
    let bytes = said.encode();
    for end in 0..hello::LENGTH {
        assert_eq!(hello::parse(&bytes[..end]), Parsed::Part(hello::LENGTH - end));
        let mut other = bytes;
        other[end] ^= 1;
        match end {
            8 => assert_eq!(hello::parse(&other), Parsed::Hello(said)),
            9 => assert_eq!(hello::parse(&other), Parsed::Hello(Hello { calls: true, ..said })),
            _ => assert_ne!(hello::parse(&other), Parsed::Hello(said), "{end}"),
        }
    }
    assert_eq!(hello::parse(&bytes), Parsed::Hello(said));
    let mut later = bytes;
    later[8] = 3;
    assert_eq!(hello::parse(&later), Parsed::Hello(said), "who speaks 3 speaks 2, too");
    assert_eq!(
        [&b""[..], b"abc", &[7; 40]].map(|passcode| hello::length_before(&[passcode, &bytes[..]].concat())),
        [0, 3, 40]
    );
    assert_eq!([&b""[..], b"abc", &bytes[1..]].map(hello::length_before), [0, 3, 19]);
    for version in [0, 1] {
        assert_eq!(hello::parse(&[b"\0iofog/2", &[version][..]].concat()), Parsed::Other);
    }
    for (largest, is_one) in [(0, false), (1023, false), (1024, true), (u16::MAX, true)] {
        let said = Hello { largest, ..said };
        assert_eq!(hello::parse(&said.encode()) == Parsed::Hello(said), is_one, "{largest}");
    }
    assert_eq!(hello::parse(b"BEAT"), Parsed::Other);
}

#[test]
fn open_says_again_what_it_was_told() {
    let v6 = "[2001:db8::1]:9".parse().unwrap();
    for ends in [None, Some(Ends { from: ([192, 0, 2, 1], 1).into(), to: v6 }), Some(Ends { from: v6, to: v6 })] {
        for (over_tls, tls) in [(false, None), (true, None), (true, Some("TLSv1.2"))] {
            for name in [None, Some("a.example"), Some(&*"n".repeat(255))] {
                let open = Open { ends, over_tls, tls, server_name: name.map(Box::from) };
                let bytes = open.encode();
                let again = Open::decode(&bytes).unwrap();
                assert_eq!((again.over_tls, again.tls, again.server_name.as_deref()), (over_tls, tls, name));
                assert_eq!(again.ends.map(|it| it.to), ends.map(|it| it.to));
                for end in 0..bytes.len() {
                    if let Some(shorter) = Open::decode(&bytes[..end]) {
                        assert_eq!((shorter.ends, shorter.server_name), (again.ends, None), "parts may be missing");
                    }
                }
            }
        }
    }
    for part in [&b"\x63\x01x"[..], b"\x01\x02v9", b"\x02\0", b"\x02\x03a\nb", b"\x02\x02\xc3\xa4"] {
        let open = [&[0, 0][..], part].concat();
        assert_eq!(Open::decode(&open), Some(Open::default()), "what is not known is skipped: {part:?}");
    }
    let long = Open { server_name: Some("n".repeat(256).into()), ..Open::default() };
    assert_eq!(long.encode(), [0, 0], "a name that is too long is left out");
}
