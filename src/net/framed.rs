//! A connection that speaks in frames (version 2, [`crate::wire::v2`]): what has come besides payload, and what is to be
//! said when there is room.
//!
//! A session on it ends without the connection: the next one begins on the same.

use super::buffers::IoContext;
use super::link::{Input, Link, LinkError};
use crate::limits::{FRAME, MESSAGES_A_TURN, OWED_BEATS, SMALL_READ};
use crate::wire::v2::channel::{Channel, Event, Role};
use crate::wire::v2::frame::{BYE, IN_A_RECORD, PING, PONG, Reason, want};
use crate::wire::v2::hello::Hello;
use crate::wire::v2::open::Open;
use std::io::{Error, ErrorKind};
use std::time::Instant;

/// One end of such a connection.
#[derive(Debug)]
pub struct Framed {
    channel: Channel,
    /// A session is to begin.
    asked: Option<Box<Open>>,
    /// The session that we have asked for has begun.
    is_accepted: bool,
    /// What came behind that, in the same reading.
    kept: Vec<u8>,
    /// The peer has broken the session off.
    reset: Option<Reason>,
    /// The peer begins no further session, or wants no more.
    is_leaving: bool,
    has_said_bye: bool,
    /// Connections that the peer wants besides.
    wanted: u16,
    /// Answers to our PINGs.
    pongs: usize,
    due: Due,
}

/// What is to be said when all is flushed, in this order.
#[derive(Debug, Default)]
struct Due {
    pongs: u8,
    ping: bool,
    fin: bool,
    reset: Option<Reason>,
    want: u16,
    bye: bool,
}

impl Framed {
    /// After both hellos.
    pub fn new(role: Role, peer: &Hello) -> Self {
        Self {
            channel: Channel::new(role, peer.largest),
            asked: None,
            is_accepted: false,
            kept: Vec::new(),
            reset: None,
            is_leaving: false,
            has_said_bye: false,
            wanted: 0,
            pongs: 0,
            due: Due::default(),
        }
    }

    /// What we say of ourselves. `calls`: the agent begins the sessions. `token`: its choice.
    pub fn hello(calls: bool, token: [u8; 8]) -> Hello {
        Hello { largest: FRAME, calls, token }
    }

    /// The agent begins the sessions.
    pub fn calls(&self) -> bool {
        self.channel.calls()
    }

    /// No session, and nothing of the last one that is still to be said.
    pub fn is_free(&self) -> bool {
        self.channel.is_over() && self.due.reset.is_none() && !self.due.fin
    }

    /// A session is to begin.
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// What the peer sends in this session has come to its end.
    pub fn has_ended(&self) -> bool {
        !self.channel.hears() || self.asked.is_some()
    }

    /// And that was all that it had to send.
    pub fn is_complete(&self) -> bool {
        self.channel.is_complete()
    }

    /// The peer has broken the session off.
    pub fn reset(&self) -> Option<Reason> {
        self.reset
    }

    /// The end of what the peer is sent in this session has been told.
    pub fn has_told_end(&self) -> bool {
        !self.channel.sends()
    }

    /// The peer will not use the connection again.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// What came behind a session's end is still to be looked at.
    pub fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Bytes of payload that are to come before the next header.
    pub(super) fn awaits(&self) -> usize {
        self.channel.awaits()
    }

    /// Bytes that come before the next payload at least.
    pub(super) fn before_payload(&self) -> usize {
        self.channel.before_payload()
    }

    /// What comes next is not the beginning of a header.
    pub(super) fn is_within_frame(&self) -> bool {
        self.channel.is_within_frame()
    }

    /// Payload that goes into one frame.
    pub(super) fn largest(&self) -> usize {
        self.channel.largest().min(FRAME.into())
    }

    /// The header of so much payload.
    pub(super) fn header(&self, length: usize) -> [u8; 4] {
        self.channel.data(length)
    }

    /// Begins a session, with so much payload, less than a record. Returns what is to be sent.
    pub fn open(&mut self, open: &Open, payload: &[u8]) -> Vec<u8> {
        self.forget_last();
        let mut message = self.channel.open(open);
        if !payload.is_empty() {
            message.extend(self.channel.data(payload.len()));
            message.extend(payload);
        }
        message
    }

    /// Begins the session that was asked for, if one was. That of an agent that calls begins with [`Framed::answer`].
    pub fn accept(&mut self) -> Option<Box<Open>> {
        let open = self.asked.take()?;
        self.forget_last();
        self.channel.accept();
        Some(open)
    }

    /// What was to be said of the last session concerns nobody any more.
    fn forget_last(&mut self) {
        (self.reset, self.is_accepted) = (None, false);
        (self.due.fin, self.due.reset) = (false, None);
    }

    /// The session of an agent that has called begins. Returns what is to be sent.
    pub fn answer(&mut self) -> [u8; 4] {
        self.channel.answer()
    }

    /// The session that we have asked for has begun, since this was last asked.
    pub fn take_accepted(&mut self) -> bool {
        std::mem::take(&mut self.is_accepted)
    }

    /// This payload, past the pump: messages that fit a record.
    pub fn data<'p>(&self, payload: &'p [u8]) -> impl Iterator<Item = Vec<u8>> + use<'_, 'p> {
        payload.chunks(self.largest().min(IN_A_RECORD)).map(|piece| [&self.header(piece.len()), piece].concat())
    }

    /// Connections that the peer wants besides, since this was last asked.
    pub fn take_wanted(&mut self) -> u16 {
        std::mem::take(&mut self.wanted)
    }

    /// Answers to our PINGs, since this was last asked.
    pub fn take_pongs(&mut self) -> usize {
        std::mem::take(&mut self.pongs)
    }

    /// Takes from the beginning of `bytes` up to the next payload. Returns how many were used, and how many of the last
    /// ones are payload. `None`: no payload is left in front of the next session.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<usize>), LinkError> {
        let mut used = 0;
        loop {
            let taken = self.channel.take(&bytes[used..]);
            let (count, event) = taken.map_err(|fault| Error::new(ErrorKind::InvalidData, fault))?;
            used += count;
            match event {
                None => return Ok((used, None)),
                Some(Event::Payload(0)) => {}
                Some(Event::Payload(count)) => return Ok((used, Some(count))),
                Some(Event::Open(open)) => self.asked = Some(Box::new(open)),
                Some(Event::Accepted) => {
                    self.is_accepted = true;
                    return Ok((used, None));
                }
                Some(Event::Fin) => {}
                Some(Event::Reset(reason)) => self.reset = Some(reason),
                Some(Event::Ping) => self.due.pongs = self.due.pongs.saturating_add(1).min(OWED_BEATS),
                Some(Event::Pong) => self.pongs += 1,
                Some(Event::Want(count)) => self.wanted = self.wanted.saturating_add(count),
                Some(Event::Bye) => self.is_leaving = true,
            }
        }
    }

    /// Keeps what stands behind the next session's beginning.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.kept.extend_from_slice(rest);
    }

    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Something is to be said.
    pub fn is_due(&self) -> bool {
        let Due { pongs, ping, fin, reset, want, bye } = self.due;
        pongs > 0 || ping || fin || reset.is_some() || want > 0 || bye
    }

    pub fn ping(&mut self) {
        self.due.ping = true;
    }

    pub fn want(&mut self, count: u16) {
        self.due.want = self.due.want.saturating_add(count);
    }

    /// We begin no further session, or want no more.
    pub fn bye(&mut self) {
        self.due.bye |= !std::mem::replace(&mut self.has_said_bye, true);
    }

    pub fn has_said_bye(&self) -> bool {
        self.has_said_bye
    }

    /// All payload of the session has been sent.
    pub fn finish(&mut self) {
        self.due.fin = self.channel.sends();
    }

    /// The session is over for us. `complete`: the peer has been sent everything.
    pub fn end(&mut self, complete: bool, reason: Reason) {
        // Where it has not begun there is nothing to be complete.
        let complete = complete && !self.channel.is_pending();
        self.is_accepted = false;
        self.due.fin |= complete && self.channel.sends();
        // Whoever has told its end already needs no answer.
        let must_tell = self.channel.sends() && !complete;
        if must_tell || (self.channel.hears() && self.due.reset.is_none()) {
            self.due.reset = Some(reason);
        }
    }

    /// Sends what is held, and then what is due, as far as there is room.
    pub fn send_due(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        while link.flush(&mut ctx.pool, now)? && self.is_due() && link.can_send(&ctx.pool) {
            let due = &mut self.due;
            if due.pongs > 0 {
                due.pongs -= 1;
                link.send(&PONG, ctx, now)?;
            } else if std::mem::take(&mut due.ping) {
                link.send(&PING, ctx, now)?;
            } else if std::mem::take(&mut due.fin) {
                link.send(&self.channel.fin(), ctx, now)?;
            } else if let Some(reason) = due.reset.take() {
                if self.channel.sends() || self.channel.hears() {
                    link.send(&self.channel.reset(reason), ctx, now)?;
                }
            } else if due.want > 0 {
                let count = std::mem::take(&mut due.want);
                link.send(&want(count), ctx, now)?;
            } else if std::mem::take(&mut due.bye) {
                link.send(&BYE, ctx, now)?;
            }
        }
        Ok(())
    }

    /// Listens while no payload is expected: no session, or one that has been broken off.
    pub fn listen(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<Input, LinkError> {
        self.send_due(link, ctx, now)?;
        if !self.kept.is_empty() && !self.begins() {
            let kept = self.take_kept();
            self.skip_payload(&kept)?;
        }
        for _ in 0..MESSAGES_A_TURN {
            if self.begins() {
                return Ok(Input::WouldBlock);
            }
            let mut result = Ok(());
            let got = link.receive(SMALL_READ, ctx, now, |message| result = self.skip_payload(message))?;
            result?;
            self.send_due(link, ctx, now)?;
            if got != Input::Data {
                return Ok(got);
            }
        }
        Ok(Input::Data)
    }

    /// A session is to begin, or has begun and was not broken off: what comes now may be its payload.
    fn begins(&self) -> bool {
        self.asked.is_some() || (self.is_accepted && self.channel.sends())
    }

    fn skip_payload(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let mut at = 0;
        while at < bytes.len() {
            let (used, payload) = self.next(&bytes[at..])?;
            at += used;
            if payload.is_none() {
                break;
            }
        }
        self.keep(&bytes[at..]);
        Ok(())
    }
}
