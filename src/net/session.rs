//! Two connections that are joined: a user and an agent, two agents, or a line and a local service.
//!
//! Bytes go both ways until one side ends. What it sent is delivered, and then the other side is closed too: a
//! connection to an agent serves one session. The one exception is a user that closes its sending side without TLS,
//! which may still be waiting for its answer (docs/protocol.md, section 5).

use super::buffers::IoContext;
use super::closing::Ending;
use super::framed::Framed;
use super::link::{Input, Link, LinkError};
use super::marked::Marked;
use super::pump::{Flow, Framing, Pumped, pump};
use super::reactor::{Close, Group, Key, Reactor, Socket, SocketMut};
use crate::limits::{DELIVERY, HALF_CLOSED_CONTENDED};
use crate::wire::v2::frame::Reason;
use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// What ends sessions in which nothing is in flight, while the process ends.
pub const STOPPING: Cause = Cause::Interrupted(Interruption::Stopping);

/// What a session has to know of the state of a connection.
pub trait Party {
    /// The other connection, of the session that is or that is to be.
    fn partner(&self) -> Option<Key>;
    /// What this connection is closed with, even while it is only closing.
    fn group(&self) -> Option<Group> {
        None
    }
    /// What travels besides payload.
    fn framing(&mut self, _link: &Link) -> Framing<'_> {
        Framing::None
    }
    /// It speaks in frames.
    fn framed(&self) -> Option<&Framed> {
        None
    }
    /// The same, to be changed.
    fn framed_mut(&mut self) -> Option<&mut Framed> {
        None
    }
    /// Where payload begins on the connection, if that is marked.
    fn marked(&mut self) -> Option<&mut Marked> {
        None
    }
    /// No payload may follow what was sent last before then.
    fn quiet_until(&self, _link: &Link, _now: Instant) -> Option<Instant> {
        None
    }
    /// So many heartbeats were among what it sent.
    fn heard_beats(&mut self, _count: usize, _now: Instant) {}
    /// Sends what is held, and answers heartbeats if there is room.
    fn answer_beats(&mut self, _link: &mut Link, _ctx: &mut IoContext, _now: Instant) -> Result<(), LinkError> {
        Ok(())
    }
    /// It has sent payload, which is on its way.
    fn note_sent(&mut self, _now: Instant) {}
    /// Payload is on its way to it.
    fn note_received(&mut self, _now: Instant) {}
    /// Its payload had to wait for its reader.
    fn note_held_back(&mut self) {}
    /// A reset ends the session at once, whatever still stands before it.
    fn leaves_on_reset(&self) -> bool {
        false
    }
    /// It answers who has begun the session. When that one breaks off, it is to stop, even if it has got all that there
    /// was.
    fn is_asked(&self) -> bool {
        false
    }
    /// What it has sent is delivered even if it takes nothing any more: an answer that comes before the whole question
    /// was read, say.
    fn is_heard_out(&self) -> bool {
        true
    }
    /// It sends no more. True: it may still be answered.
    fn half_close(&mut self, _link: &Link, _now: Instant) -> bool {
        false
    }
    /// It is a plain connection, on which either direction may end before the other.
    fn may_half_close(&self) -> bool {
        false
    }
    /// One direction of the session has ended, if that was not known.
    fn note_half_closed(&mut self, _now: Instant) {}
    /// When payload last came for it, since it sends no more.
    fn half_closed_since(&self) -> Option<Instant> {
        None
    }
}

/// Why a session, or the connection of one that is still alone, ends.
#[derive(Debug)]
pub enum Cause {
    /// This side has ended, and all that it sent is on its way.
    Ended(Key),
    /// This side sends no more, and the other one, which cannot say that it has answered, has been silent for too long.
    NoAnswer(Key),
    /// The other side sends no more, and this one, which could say that it has ended, has been silent for too long.
    Silent(Key),
    /// This side broke off in the middle. It may still listen.
    Truncated(Key, LinkError),
    /// This connection has failed.
    Failed(Key, LinkError),
    /// This side has not been heard of for too long.
    Absent(Key),
    /// This side has not confirmed the end of its session.
    Unconfirmed(Key),
    /// This side takes nothing of what it is to get, and who sent it is gone.
    Undeliverable(Key),
    /// This side holds buffers that others wait for.
    Shortage(Key),
    /// It is ended from outside, on its way.
    Interrupted(Interruption),
}

/// How a session ends, in a few words (docs/monitoring.md, "Causes and reasons").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This side has ended it properly.
    Side(Key),
    Reset,
    Truncated,
    Absence,
    Timeout,
    Idle,
    Shortage,
    Removed,
    Stop,
    Error,
}

impl End {
    fn of_fault(fault: &LinkError) -> Self {
        match fault {
            LinkError::Truncated => Self::Truncated,
            LinkError::Reset(Reason::Silent) => Self::Timeout,
            LinkError::Reset(_) => Self::Reset,
            LinkError::Tls(_) => Self::Error,
            LinkError::Io(e) => match e.kind() {
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Self::Reset,
                ErrorKind::UnexpectedEof => Self::Truncated,
                ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Timeout,
                _ => Self::Error,
            },
        }
    }

    /// Its word; that of a side is for who knows the sides.
    pub fn word(self) -> &'static str {
        match self {
            Self::Side(_) => "end",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::Absence => "absence",
            Self::Timeout => "timeout",
            Self::Idle => "idle",
            Self::Shortage => "shortage",
            Self::Removed => "removed",
            Self::Stop => "stop",
            Self::Error => "error",
        }
    }
}

/// What ends a session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    Stopping,
    /// Nothing has moved for as long as its mapping allows.
    Idle,
    /// Its mapping is removed.
    Removed,
    /// The local service cannot be reached.
    Refused,
    /// Something that has words only.
    Other(&'static str),
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopping => "the process is stopping",
            Self::Idle => "nothing moved for its `idletimeout`",
            Self::Removed => "its mapping is removed",
            Self::Refused => "the local service cannot be reached",
            Self::Other(why) => why,
        })
    }
}

impl Cause {
    /// It is ended from outside, for a reason that has words only.
    pub fn interrupted(why: &'static str) -> Self {
        Self::Interrupted(Interruption::Other(why))
    }

    fn of_source<S: Party>(reactor: &Reactor<S>, key: Key, fault: LinkError) -> Self {
        match fault {
            LinkError::Reset(_) => Self::Truncated(key, fault),
            LinkError::Io(_) => Self::Failed(key, fault),
            // Where frames tell the end of a session, whatever ends the connection breaks it.
            _ if is_framed(reactor, key) => Self::Failed(key, fault),
            _ => Self::Truncated(key, fault),
        }
    }

    /// How it ends, for who counts and lists sessions.
    pub fn end(&self) -> End {
        match self {
            Self::Ended(key) | Self::NoAnswer(key) => End::Side(*key),
            Self::Truncated(_, fault) | Self::Failed(_, fault) => End::of_fault(fault),
            Self::Absent(_) => End::Absence,
            Self::Silent(_) | Self::Undeliverable(_) | Self::Unconfirmed(_) => End::Timeout,
            Self::Shortage(_) => End::Shortage,
            Self::Interrupted(Interruption::Stopping) => End::Stop,
            Self::Interrupted(Interruption::Removed) => End::Removed,
            Self::Interrupted(Interruption::Idle) => End::Idle,
            Self::Interrupted(Interruption::Refused | Interruption::Other(_)) => End::Error,
        }
    }

    /// What the peer of a connection that goes on is told of why the session on it is broken off.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Interrupted(Interruption::Refused) => Reason::Refused,
            Self::NoAnswer(_) | Self::Silent(_) | Self::Undeliverable(_) | Self::Interrupted(Interruption::Idle) => {
                Reason::Silent
            }
            Self::Shortage(_) | Self::Interrupted(_) => Reason::Ended,
            _ => Reason::Broken,
        }
    }

    /// Whose doing it is.
    pub fn by(&self) -> Option<Key> {
        match self {
            Self::Truncated(key, _) | Self::Ended(key) | Self::NoAnswer(key) | Self::Silent(key) => Some(*key),
            _ => self.broken(),
        }
    }

    /// The connection that is of no more use.
    pub fn broken(&self) -> Option<Key> {
        match self {
            Self::Failed(key, _)
            | Self::Absent(key)
            | Self::Unconfirmed(key)
            | Self::Undeliverable(key)
            | Self::Shortage(key) => Some(*key),
            _ => None,
        }
    }

    /// What `to` is to conclude from its end: whether it has got all that `from` had to send, as far as anybody knows.
    fn ending<S: Party>(&self, to: &Socket<'_, S>, (from, source): (Key, &Socket<'_, S>)) -> Ending {
        let is_duplex = is_duplex(to.state, source.state);
        let complete = match self {
            // Nobody hears its answer any more.
            Self::Truncated(key, LinkError::Reset(Reason::Broken)) if *key == from && to.state.is_asked() => false,
            // What came behind it concerns the other direction.
            _ if source.state.framed().is_some_and(Framed::is_complete) => true,
            Self::Truncated(key, _) if *key == from => false,
            _ if self.broken() == Some(from) => false,
            _ if has_ended(source) => true,
            // Who has ended first wants no more, unless it was in the middle of listening.
            Self::Ended(_) | Self::NoAnswer(_) if !is_duplex => has_ended(to) && !source.link.may_read(),
            _ => false,
        };
        if complete { Ending::Complete } else { Ending::Truncated }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(_) => f.write_str("it has ended"),
            Self::NoAnswer(_) => f.write_str("it has closed its sending side, and no answer came"),
            Self::Silent(_) => f.write_str("it was silent, and the other side has closed its sending side"),
            Self::Truncated(_, fault) | Self::Failed(_, fault) => fault.fmt(f),
            Self::Absent(_) => f.write_str("it has not been heard of for longer than its heartbeat threshold"),
            Self::Unconfirmed(_) => f.write_str("it has not confirmed the end of its session"),
            Self::Undeliverable(_) => f.write_str("it takes nothing of what was sent to it before the other side left"),
            Self::Shortage(_) => f.write_str("all relay buffers are in use, and it is stuck"),
            Self::Interrupted(why) => why.fmt(f),
        }
    }
}

/// What one turn of a session did.
pub struct Report {
    /// Payload that came from the one, and from the other.
    pub payload: [u64; 2],
    /// The session is over.
    pub over: Option<Cause>,
}

/// The session begins: from now on an end that is not told as one is a reset.
pub fn begin<S: Party>(reactor: &mut Reactor<S>, keys: [Key; 2]) {
    for key in keys {
        if let Some((socket, _)) = reactor.get_mut(key) {
            socket.link.trust();
            // Frames tell an end; without one nobody takes it for that.
            socket.link.set_abortive(socket.state.framed().is_none());
        }
    }
}

/// It speaks in frames.
pub fn is_framed<S: Party>(reactor: &Reactor<S>, key: Key) -> bool {
    reactor.get(key).is_some_and(|it| it.state.framed().is_some())
}

/// All that it had to send has been read.
fn has_ended<S: Party>(Socket { link, state }: &Socket<'_, S>) -> bool {
    state.framed().map_or_else(|| link.has_ended(), Framed::is_complete)
}

/// Both directions end by themselves: one speaks in frames, which tell an end, and the other is no agent of version 1,
/// which has no way to say it without ending its connection.
fn is_duplex<S: Party>(one: &S, other: &S) -> bool {
    let may = |state: &S| state.framed().is_some() || state.may_half_close();
    (one.framed().is_some() || other.framed().is_some()) && may(one) && may(other)
}

/// Moves what there is to move between the two. `stopping`: a session with nothing in flight is over.
pub fn relay<S: Party>(reactor: &mut Reactor<S>, one: Key, other: Key, stopping: bool) -> Report {
    if reactor.get(other).is_some_and(|it| it.state.leaves_on_reset() && it.link.is_reset()) {
        let reset = LinkError::Io(ErrorKind::ConnectionReset.into());
        return Report { payload: [0, 0], over: Some(Cause::Failed(other, reset)) };
    }
    if let (Some(a), Some(b)) = (reactor.get(one), reactor.get(other)) {
        if is_duplex(a.state, b.state) {
            return relay_both(reactor, one, other, stopping);
        }
    }
    let forth = forward(reactor, one, other);
    let back = if is_half_closed(reactor, other) {
        // Nothing will come, but answers to heartbeats may still be on their way.
        let answered = answer_beats(reactor, one);
        let flow = answered.map_or_else(Flow::SinkFailed, |()| hear_half_closed(reactor, other));
        Pumped { payload: 0, beats: 0, flow }
    } else {
        forward(reactor, other, one)
    };
    let payload = [forth.payload, back.payload];
    let over = match (forth.flow, back.flow) {
        (Flow::SourceFailed(fault), _) => Some(Cause::of_source(reactor, one, fault)),
        (Flow::Eof, _) => Some(Cause::Ended(one)),
        (_, Flow::SourceFailed(fault)) => Some(Cause::of_source(reactor, other, fault)),
        // It takes nothing any more, and all that it sent is on its way. Who might have been answered behind its end is
        // gone: whoever would answer is to stop.
        (Flow::SinkFailed(fault), Flow::Eof) => {
            half_close(reactor, other).or_else(|| Some(Cause::Failed(other, fault)))
        }
        (Flow::SinkFailed(fault), _) => end_of_sink(reactor, other, fault),
        (_, Flow::SinkFailed(fault)) => end_of_sink(reactor, one, fault),
        (_, Flow::Eof) => half_close(reactor, other),
        _ => (stopping && is_idle(reactor, one, other)).then_some(STOPPING),
    };
    Report { payload, over }
}

/// The same where each direction ends by itself.
fn relay_both<S: Party>(reactor: &mut Reactor<S>, one: Key, other: Key, stopping: bool) -> Report {
    // Who has ended first, for the log.
    let first = if is_told(reactor, one) { other } else { one };
    let forth = forward_to_end(reactor, one, other);
    let back = forward_to_end(reactor, other, one);
    let payload = [forth.payload, back.payload];
    let over = match (forth.flow, back.flow) {
        (Flow::SourceFailed(fault), _) => Some(Cause::of_source(reactor, one, fault)),
        (_, Flow::SourceFailed(fault)) => Some(Cause::of_source(reactor, other, fault)),
        // It takes nothing any more, and all that it sent is on its way.
        (Flow::SinkFailed(_), Flow::Eof) => Some(Cause::Ended(other)),
        (Flow::Eof, Flow::SinkFailed(_)) => Some(Cause::Ended(one)),
        (Flow::SinkFailed(fault), _) => end_of_sink(reactor, other, fault),
        (_, Flow::SinkFailed(fault)) => end_of_sink(reactor, one, fault),
        _ if is_told(reactor, one) && is_told(reactor, other) => Some(Cause::Ended(first)),
        _ => (stopping && is_idle(reactor, one, other)).then_some(STOPPING),
    };
    Report { payload, over }
}

/// It has been told that it gets nothing more.
fn is_told<S: Party>(reactor: &Reactor<S>, key: Key) -> bool {
    let is = |Socket { link, state }: Socket<'_, S>| {
        state.framed().map_or_else(|| link.has_ended_output(), Framed::has_told_end)
    };
    reactor.get(key).is_none_or(is)
}

/// One direction, one turn; and its end, if that has come.
fn forward_to_end<S: Party>(reactor: &mut Reactor<S>, from: Key, to: Key) -> Pumped {
    let is_framed = is_framed(reactor, from);
    if is_told(reactor, to) && !is_framed {
        let flow = answer_beats(reactor, to).map_or_else(Flow::SinkFailed, |()| Flow::Eof);
        return Pumped { payload: 0, beats: 0, flow };
    }
    let mut pumped = forward(reactor, from, to);
    if let Flow::Eof = pumped.flow {
        let now = reactor.now;
        // Frames that stand behind the end of the payload are heard all the same.
        reactor.again_if(from, |it| is_framed && it.link.may_read());
        if let Err(fault) = tell_end(reactor, to, now) {
            pumped.flow = Flow::SinkFailed(fault);
        }
        for key in [from, to] {
            if let Some((SocketMut { state, .. }, _)) = reactor.get_mut(key) {
                state.note_half_closed(now);
            }
        }
        reactor.wake_by(now + HALF_CLOSED_CONTENDED);
    }
    pumped
}

/// Tells `to` that it gets nothing more, as soon as it has taken everything.
fn tell_end<S: Party>(reactor: &mut Reactor<S>, to: Key, now: Instant) -> Result<(), LinkError> {
    let Some((SocketMut { link, state }, ctx)) = reactor.get_mut(to) else { return Ok(()) };
    match state.framed_mut() {
        Some(framed) => {
            framed.finish();
            framed.send_due(link, ctx, now)
        }
        None => link.end_output(ctx, now).map(drop),
    }
}

/// One direction, one turn.
pub fn forward<S: Party>(reactor: &mut Reactor<S>, from: Key, to: Key) -> Pumped {
    let now = reactor.now;
    let only = |flow| Pumped { payload: 0, beats: 0, flow };
    if let Some(until) = reactor.get(to).and_then(|it| it.state.quiet_until(it.link, now)) {
        reactor.wake_by(until);
        return only(Flow::WouldBlock);
    }
    // Before more payload: with a busy pipe there is hardly ever another moment.
    if let Err(fault) = answer_beats(reactor, to) {
        return only(Flow::SinkFailed(fault));
    }
    if let Some(flow) = hear_marker(reactor, from).or_else(|| send_marker(reactor, from, to)) {
        return only(flow);
    }
    let Some((source, sink, ctx)) = reactor.pair_mut(from, to) else { return only(Flow::Eof) };
    let framings = (source.state.framing(source.link), sink.state.framing(sink.link));
    let pumped = pump((source.link, framings.0), (sink.link, framings.1), ctx, now);
    let is_framed = source.state.framed().is_some();
    if pumped.payload > 0 {
        source.state.note_sent(now);
        sink.state.note_received(now);
    }
    if pumped.beats > 0 || is_framed {
        source.state.heard_beats(pumped.beats, now);
        // If it does not take the answers, the other direction will find out.
        let _ = source.state.answer_beats(source.link, ctx, now);
    }
    match pumped.flow {
        Flow::Blocked => source.state.note_held_back(),
        Flow::Again => reactor.again(from),
        _ => {}
    }
    reactor.wait_for_buffer(from, pumped.flow.wants());
    pumped
}

/// Listens to one that speaks in frames while no payload is expected, and waits for a buffer if it takes one. Returns what
/// came of it, and whether the peer has broken the session off. `None`: it does not speak in frames, or is gone.
pub fn listen<S: Party>(reactor: &mut Reactor<S>, key: Key) -> Option<(Result<Input, LinkError>, Option<Reason>)> {
    let now = reactor.now;
    let (SocketMut { link, state }, ctx) = reactor.get_mut(key)?;
    let framed = state.framed_mut()?;
    let heard = framed.listen(link, ctx, now);
    let (reset, wanted) = (framed.reset(), matches!(heard, Ok(Input::Starved)).then(|| link.record_want()));
    reactor.wait_for_buffer(key, wanted);
    Some((heard, reset))
}

/// Listens to one that sends no more: where there are frames it may break off all the same.
fn hear_half_closed<S: Party>(reactor: &mut Reactor<S>, key: Key) -> Flow {
    let Some((heard, reset)) = listen(reactor, key) else { return Flow::WouldBlock };
    match (reset, heard) {
        (Some(reason), _) => Flow::SourceFailed(LinkError::Reset(reason)),
        (None, Err(fault)) => Flow::SourceFailed(fault),
        (None, Ok(Input::Eof)) => Flow::SourceFailed(LinkError::Truncated),
        (None, Ok(Input::Data)) => {
            reactor.again(key);
            Flow::WouldBlock
        }
        (None, Ok(Input::WouldBlock | Input::Starved)) => Flow::WouldBlock,
    }
}

fn answer_beats<S: Party>(reactor: &mut Reactor<S>, key: Key) -> Result<(), LinkError> {
    let now = reactor.now;
    let Some((SocketMut { link, state }, ctx)) = reactor.get_mut(key) else { return Ok(()) };
    state.answer_beats(link, ctx, now)
}

/// Takes in what stands before the marker behind which all is payload. `None`: it has come, or there is none.
fn hear_marker<S: Party>(reactor: &mut Reactor<S>, from: Key) -> Option<Flow> {
    let now = reactor.now;
    let (SocketMut { link, state }, ctx) = reactor.get_mut(from)?;
    let marked = state.marked().filter(|marked| !marked.hears_payload())?;
    let (beats, got) = match marked.hear(link, ctx, now) {
        Ok(heard) => heard,
        Err(fault) => return Some(Flow::SourceFailed(fault)),
    };
    let is_open = marked.hears_payload();
    state.heard_beats(beats, now);
    // If it does not take the answers, the other direction will find out.
    let _ = state.answer_beats(link, ctx, now);
    match got {
        Input::Eof => return Some(Flow::Eof),
        Input::Data if !is_open => reactor.again(from),
        _ => {}
    }
    (!is_open).then_some(Flow::WouldBlock)
}

/// Sends the marker, if `to` waits for one and there is something to send behind it. `None`: payload may go on.
fn send_marker<S: Party>(reactor: &mut Reactor<S>, from: Key, to: Key) -> Option<Flow> {
    let now = reactor.now;
    let (source, sink, ctx) = reactor.pair_mut(from, to)?;
    let marked = sink.state.marked().filter(|marked| !marked.sends_payload())?;
    // What is not there yet will raise an event, and the pump does not find it before.
    match source.link.waiting(ctx) {
        Ok(Input::Data) => {}
        Ok(_) => return None,
        Err(fault) => return Some(Flow::SourceFailed(fault)),
    }
    if sink.link.is_flushed() && !sink.link.can_send(&ctx.pool) {
        let want = sink.link.payload_want();
        reactor.wait_for_buffer(from, Some(want));
        return Some(Flow::Starved(want));
    }
    marked.begin_payload(sink.link, ctx, now).err().map(Flow::SinkFailed)
}

/// `key` takes nothing any more. `None`: what it has sent is delivered first.
pub fn end_of_sink<S: Party>(reactor: &Reactor<S>, key: Key, fault: LinkError) -> Option<Cause> {
    let unread = reactor.get(key).is_some_and(|it| {
        // Behind its end there is nothing to be read.
        it.state.is_heard_out() && it.link.may_read() && !it.link.has_ended()
    });
    (!unread).then_some(Cause::Failed(key, fault))
}

fn half_close<S: Party>(reactor: &mut Reactor<S>, key: Key) -> Option<Cause> {
    let now = reactor.now;
    let (SocketMut { link, state }, _) = reactor.get_mut(key)?;
    if !state.half_close(link, now) {
        return Some(Cause::Ended(key));
    }
    reactor.wake_by(now + HALF_CLOSED_CONTENDED);
    None
}

fn is_half_closed<S: Party>(reactor: &Reactor<S>, key: Key) -> bool {
    reactor.get(key).is_some_and(|it| it.state.half_closed_since().is_some())
}

/// Nothing is in flight. A half-closed session waits for its answer.
fn is_idle<S: Party>(reactor: &Reactor<S>, one: Key, other: Key) -> bool {
    let quiet = |key| reactor.get(key).is_some_and(|it| !it.link.may_read() && it.link.is_flushed());
    !is_half_closed(reactor, other) && quiet(one) && quiet(other)
}

/// Until when the end of a session is kept for a reader that takes nothing, while who sent it is gone already.
pub fn delivery_deadline<S: Party>(reactor: &Reactor<S>, Socket { link, state }: &Socket<'_, S>) -> Option<Instant> {
    let sender = reactor.get(state.partner()?)?;
    let has_ended = sender.state.framed().map_or_else(|| sender.link.has_ended(), Framed::has_ended);
    let is_gone = sender.link.has_hung_up() || has_ended;
    (is_gone && !link.is_flushed()).then(|| link.last_tx + DELIVERY)
}

/// Until when a half-closed user's agent may be silent.
pub fn half_closed_deadline<S: Party>(
    Socket { link, state }: &Socket<'_, S>,
    patience: impl FnOnce() -> Duration,
) -> Option<Instant> {
    state.half_closed_since().map(|since| since.max(link.last_tx) + patience())
}

/// A half-closed user's agent has been silent for long enough, unless it is the user who is slow.
pub fn half_closed_is_over<S: Party>(reactor: &Reactor<S>, user: Key) -> bool {
    let Some(socket) = reactor.get(user) else { return false };
    let unread = socket.state.partner().and_then(|agent| reactor.get(agent)).is_some_and(|agent| agent.link.may_read());
    !unread && socket.link.is_flushed()
}

/// Why the session of `key` ends, one direction of which has ended, and which has been silent for long enough.
pub fn cause_of_silence<S: Party>(reactor: &Reactor<S>, key: Key) -> Cause {
    let Some((one, partner)) = reactor.get(key).and_then(|it| Some((it.state, it.state.partner()?))) else {
        return Cause::NoAnswer(key);
    };
    match reactor.get(partner) {
        Some(other) if is_duplex(one, other.state) => Cause::Silent(if is_told(reactor, key) { key } else { partner }),
        _ => Cause::NoAnswer(key),
    }
}

/// How `key`, and who is joined to it, are to be closed.
pub fn endings<S: Party>(reactor: &Reactor<S>, key: Key, cause: &Cause) -> [Option<(Key, Close)>; 2] {
    let how = |key, ending| if cause.broken() == Some(key) { Close::Abort } else { Close::Drain(ending) };
    let Some(socket) = reactor.get(key) else { return [None; 2] };
    let partner = socket.state.partner().and_then(|key| Some((key, reactor.get(key)?)));
    let Some((partner, other)) = partner else {
        // Somebody waits at the other end of the line.
        let is_interrupted = matches!(cause, Cause::Interrupted(_));
        return [Some((key, how(key, if is_interrupted { Ending::Truncated } else { Ending::Complete }))), None];
    };
    let own = cause.ending(&socket, (partner, &other));
    let others = cause.ending(&other, (key, &socket));
    [(key, own), (partner, others)].map(|(key, ending)| Some((key, how(key, ending))))
}
