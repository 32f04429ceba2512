//! A stream, its TLS if it has one, and what it has not written yet.
//!
//! A link belongs to one entry of the reactor. It knows readiness (edge-triggered events are remembered here,
//! and forgotten only when the kernel says "would block") and nothing of what the bytes mean.
//!
//! How encrypted bytes are read, and whether the beginning of a record is kept: see `inbox`.

mod patience;
mod reading;

use super::buffers::{IoContext, Pool, Purpose, Want};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::stream::Stream;
use super::tcp;
use super::tls::{self, Tls};
use crate::network::Network;
use crate::wire::v2::frame::Reason;
use patience::{Slow, Unacknowledged};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Instant;

/// One end of the relay.
pub struct Link {
    pub(super) stream: Stream,
    pub(super) transport: Transport,
    pub(super) outbox: Outbox,
    inbox: Inbox,
    /// The peer has proved itself: it may hold a buffer for the beginning of a record.
    trusted: bool,
    ready: Ready,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// When the last byte came in.
    pub last_rx: Instant,
    /// When the kernel last took a byte of ours.
    pub last_tx: Instant,
    /// When a whole record last came in, or nothing of one was kept.
    moved_in: Instant,
    /// When the peer had last taken as much as a record, or all there was.
    moved_out: Instant,
    /// Its reader has closed its window, and still answers.
    slow: Option<Slow>,
    /// When the peer's window was last known never to have held sending up.
    unlimited: Instant,
    /// `last_tx` when the kernel was last seen with nothing left to send.
    settled: Option<Instant>,
    /// What the peer has not acknowledged, when that was last looked at.
    unacknowledged: Unacknowledged,
    /// The peer's FIN has been read.
    finished: bool,
    /// A write has taken the socket's error from the kernel: what is read from now on ends in a FIN that is none.
    failed: bool,
    /// Closing it means a reset.
    abortive: bool,
    output: Output,
}

/// [`Stream::write`] or [`Stream::write_ahead`].
type Write = fn(&mut Stream, &[u8]) -> io::Result<usize>;

/// How bytes travel.
pub(super) enum Transport {
    Plain,
    Tls(Tls),
}

impl Transport {
    pub(super) fn tls(&mut self) -> Option<&mut Tls> {
        if let Self::Tls(tls) = self { Some(tls) } else { None }
    }
}

/// How far what is sent has come to its end, while the peer may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Open,
    /// close_notify is on its way, if there is TLS.
    Notified,
    /// FIN is.
    Ended,
}

/// What the events said and the kernel has not taken back since.
struct Ready {
    readable: bool,
    writable: bool,
    /// There is urgent data: the kernel ends one read in front of it.
    urgent: bool,
    /// The peer has sent FIN; there may be bytes in front of it.
    fin: bool,
    /// The connection is broken; there may still be bytes to read.
    reset: bool,
}

/// Why a link is of no more use.
#[derive(Debug)]
pub enum LinkError {
    Io(io::Error),
    Tls(tls::TlsError),
    /// FIN over TLS without close_notify: what came before it may not be all that the peer sent.
    Truncated,
    /// The session was broken off, and not the connection.
    Reset(Reason),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Tls(e) => e.fmt(f),
            Self::Truncated => f.write_str("the peer closed the connection without close_notify"),
            Self::Reset(reason) => f.write_str(match reason {
                Reason::Broken => "the other end of the session has failed",
                Reason::Refused => "the local service cannot be reached",
                Reason::Silent => "nothing came for too long",
                Reason::NoPeer => "nobody was there at the other side of the pipe",
                Reason::Ended | Reason::Other(_) => "the session was ended at the other end",
            }),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<tls::TlsError> for LinkError {
    fn from(e: tls::TlsError) -> Self {
        Self::Tls(e)
    }
}

/// What became of an attempt to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Something; there may be more.
    Data,
    /// Nothing (more) for now; an event will tell.
    WouldBlock,
    /// Half a record, which needs a buffer ([`Link::record_want`]) and there is none: no event will tell.
    Starved,
    /// The end: FIN or close_notify, and everything before it has been handed out.
    Eof,
}

impl Link {
    /// A plain link.
    pub fn plain(stream: Stream, peer: SocketAddr, now: Instant) -> Self {
        Self {
            stream,
            transport: Transport::Plain,
            outbox: Outbox::new(Want { purpose: Purpose::Payload, network: Network::of(peer.ip()) }),
            inbox: Inbox::Empty,
            trusted: false,
            // The kernel says no if it must; the first event only comes with the next poll.
            ready: Ready { readable: false, writable: true, urgent: false, fin: false, reset: false },
            peer,
            last_rx: now,
            last_tx: now,
            moved_in: now,
            moved_out: now,
            slow: None,
            unlimited: now,
            settled: None,
            unacknowledged: Unacknowledged::Nothing,
            finished: false,
            failed: false,
            abortive: false,
            output: Output::Open,
        }
    }

    /// A link that begins with a TLS handshake.
    pub fn tls(stream: Stream, tls: Tls, peer: SocketAddr, now: Instant) -> Self {
        Self { transport: Transport::Tls(tls), ..Self::plain(stream, peer, now) }
    }

    /// The same link, with the API's buffers.
    pub fn for_api(mut self) -> Self {
        self.outbox = Outbox::new(Want { purpose: Purpose::Api, ..self.outbox.want() });
        self
    }

    /// What it wants a buffer for that waits for the rest of a record.
    pub fn record_want(&self) -> Want {
        let purpose = if self.is_of_api() { Purpose::Api } else { Purpose::Record };
        Want { purpose, ..self.outbox.want() }
    }

    /// What it wants a buffer for that has not taken everything.
    pub fn payload_want(&self) -> Want {
        self.outbox.want()
    }

    /// From now on its buffers count for `network`, and not for that of its own peer.
    pub(crate) fn hold_for(&mut self, network: Network) {
        self.outbox.hold_for(network);
    }

    /// What its buffers count for.
    pub(crate) fn holds_for(&self) -> Network {
        self.outbox.want().network
    }

    fn is_of_api(&self) -> bool {
        self.outbox.want().purpose == Purpose::Api
    }

    /// The same link while its connect is under way: an event tells when it can be written to.
    pub fn dialling(mut self) -> Self {
        self.ready.writable = false;
        self
    }

    /// From now on it speaks TLS. Nothing has been read that the handshake would miss.
    pub fn secure(&mut self, tls: Tls) {
        self.transport = Transport::Tls(tls);
    }

    /// Whether a connect that was under way is done; the error says why it has failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        match self.stream.take_error()? {
            Some(e) => Err(e),
            None => Ok(self.ready.writable),
        }
    }

    /// Remembers what an event said.
    pub fn note(&mut self, event: &mio::event::Event) {
        self.ready.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.ready.writable |= event.is_writable() || event.is_error();
        self.ready.urgent |= event.is_priority();
        self.ready.fin |= event.is_read_closed();
        self.ready.reset |= event.is_error();
    }

    /// There may be something to read: what waits unread counts as a sign of life.
    pub fn may_read(&self) -> bool {
        self.ready.readable || self.inbox.is_ready()
    }

    /// Has the next reading ask the kernel, whatever the events have said so far: one may be on its way.
    pub fn look_again(&mut self) {
        self.ready.readable = true;
    }

    /// Asks the kernel whether FIN or a reset has come, whatever stands in front of it.
    pub fn look_for_end(&mut self) {
        if let Stream::Tcp(stream) = &self.stream {
            self.ready.fin |= !tcp::is_established(stream);
        }
    }

    /// As [`Link::note`] of an event that says so.
    #[cfg(test)]
    pub fn note_writable(&mut self) {
        self.ready.writable = true;
    }

    /// The peer has reset the connection, or the network has given it up.
    pub fn is_reset(&self) -> bool {
        self.ready.reset
    }

    /// FIN or a reset has come: perhaps behind bytes that nobody has read yet.
    pub fn has_hung_up(&self) -> bool {
        self.ready.fin || self.ready.reset
    }

    /// From now on the peer may hold a buffer for the beginning of a record.
    pub fn trust(&mut self) {
        // What was only looked at so far is taken now; no event will come for it again.
        self.ready.readable |= !self.trusted;
        self.trusted = true;
    }

    /// It holds a relay buffer, or what would be in one if one had been free: because of that it may hold up a record
    /// of its partner's, which is in one.
    pub fn holds_buffer(&self) -> bool {
        !self.is_of_api() && (!self.outbox.is_empty() || !self.inbox.is_empty())
    }

    /// What has been taken from the kernel and has not gone on is in a buffer.
    pub(super) fn keeps_input(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Since when the peer has held a relay buffer without progress: it takes nothing, or does not finish its record.
    /// `None`: it holds none, or it is not the peer who is waited for.
    pub fn stuck_since(&self) -> Option<Instant> {
        let out = (!self.outbox.is_empty()).then_some(self.moved_out);
        let within = (self.inbox.is_part() && !self.ready.readable).then_some(self.moved_in);
        out.into_iter().chain(within).min().filter(|_| !self.is_of_api())
    }

    /// The peer has sent all that it had to send, and it has been read: close_notify over TLS, else FIN.
    ///
    /// After close_notify no event may come any more.
    pub fn has_ended(&self) -> bool {
        match &self.transport {
            Transport::Plain => self.finished,
            Transport::Tls(tls) => tls.peer_has_closed(),
        }
    }

    /// The handshake is done, or there is none.
    pub fn is_open(&self) -> bool {
        match &self.transport {
            Transport::Plain => true,
            Transport::Tls(tls) => !tls.is_handshaking(),
        }
    }

    /// Half-open connections exist without TLS only: there close_notify is the end.
    pub fn is_plain(&self) -> bool {
        matches!(self.transport, Transport::Plain)
    }

    /// Nothing is left to write.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Looks at what has come before any TLS, and leaves it there: at most as much as fits the scratch. 0 is the end;
    /// `None`: nothing is there.
    pub fn peek<'d>(&mut self, ctx: &'d mut IoContext) -> io::Result<Option<&'d [u8]>> {
        if !self.ready.readable {
            return Ok(None);
        }
        Ok(self.look(&mut ctx.scratch)?.map(|count| &ctx.scratch[..count]))
    }

    /// Takes bytes that have been looked at.
    pub fn skip(&mut self, count: usize, ctx: &mut IoContext, now: Instant) -> io::Result<()> {
        self.dismiss(count, &mut ctx.nowhere, now)
    }

    /// The version of TLS that was agreed on; `None` without TLS.
    pub fn tls_version(&self) -> Option<&'static str> {
        match &self.transport {
            Transport::Plain => None,
            Transport::Tls(tls) => tls.version(),
        }
    }

    /// The same link, on which the server name is remembered that the peer asks for in its TLS handshake.
    pub fn with_server_name(mut self) -> Self {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.want_server_name();
        }
        self
    }

    /// The server name that the peer has asked for; `None` without TLS.
    pub fn server_name(&self) -> Option<&str> {
        match &self.transport {
            Transport::Plain => None,
            Transport::Tls(tls) => tls.server_name(),
        }
    }

    /// Nobody wants to know it any more.
    pub fn forget_server_name(&mut self) {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.forget_server_name();
        }
    }

    /// The address that the peer connected to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok().map(tcp::canonical),
            Stream::Unix(_) => None,
        }
    }

    /// The socket itself, for its options.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Writes what is held, if the kernel takes it. True: nothing is left.
    pub fn flush(&mut self, pool: &mut Pool, now: Instant) -> io::Result<bool> {
        if !self.outbox.is_empty() && self.ready.writable {
            let sent = self
                .outbox
                .flush(&mut self.stream, pool)
                .inspect_err(|e| note_failure(e, &mut self.failed, &mut self.ready))?;
            if sent > 0 {
                self.last_tx = now;
            }
            self.ready.writable = self.outbox.is_empty();
        }
        if self.outbox.is_empty() || self.outbox.has_progressed() {
            self.moved_out = now;
        }
        Ok(self.outbox.is_empty())
    }

    /// Sends `message` (at most [`tls::MAX_MESSAGE`] bytes) as one record of its own, behind what is held.
    pub fn send(&mut self, message: &[u8], ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        match &mut self.transport {
            Transport::Plain => self.send_raw(message, &mut ctx.pool, now),
            Transport::Tls(tls) => {
                let count = tls.seal(message, &mut ctx.scratch)?;
                self.send_raw(&ctx.scratch[..count], &mut ctx.pool, now)
            }
        }
    }

    /// A small message finds room, in the kernel or in the outbox. To be asked when all is flushed.
    pub fn can_send(&self, pool: &Pool) -> bool {
        self.ready.writable || pool.has_any(self.outbox.want().purpose)
    }

    /// Sends `message` over a plain link, and something else follows in this turn: the peer is woken once.
    pub fn send_ahead(&mut self, message: &[u8], ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        debug_assert!(self.is_plain());
        self.send_by(Stream::write_ahead, message, &mut ctx.pool, now)
    }

    /// The kernel has room, as far as is known.
    pub(super) fn may_write(&self) -> bool {
        self.ready.writable
    }

    /// Sends a plain message to one who has been sent everything. Takes no buffer: what the kernel does not take is kept
    /// without one.
    pub(super) fn send_without_buffer(&mut self, message: &[u8], now: Instant) -> io::Result<()> {
        let sent = self.write_through(message, now)?;
        self.outbox.keep_rest(&message[sent..]);
        Ok(())
    }

    fn send_raw(&mut self, bytes: &[u8], pool: &mut Pool, now: Instant) -> Result<(), LinkError> {
        self.send_by(Stream::write, bytes, pool, now)
    }

    fn send_by(&mut self, write: Write, bytes: &[u8], pool: &mut Pool, now: Instant) -> Result<(), LinkError> {
        let full = |_| LinkError::Io(io::Error::new(ErrorKind::OutOfMemory, "no relay buffer is free"));
        // A buffer is only wanted for what the kernel does not take: small answers go out even when all are in use.
        let sent = if self.flush(pool, now)? { self.write_by(write, bytes, now)? } else { 0 };
        if sent < bytes.len() {
            self.outbox.append_rest(&bytes[sent..], pool).map_err(full)?;
        }
        Ok(())
    }

    /// Sends what the handshake or an alert has to say.
    fn send_reply(&mut self, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if ctx.reply.is_empty() {
            return Ok(());
        }
        let reply = std::mem::take(&mut ctx.reply);
        let result = self.send_raw(&reply, &mut ctx.pool, now);
        ctx.reply = reply;
        ctx.reply.clear();
        result
    }

    /// Says the first word of a dialled TLS connection.
    pub fn begin(&mut self, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.begin(&mut ctx.reply)?;
        }
        self.send_reply(ctx, now)
    }

    /// Goes on with the handshake. True: it is done. What lies behind it stays unread.
    pub fn handshake(&mut self, ctx: &mut IoContext, now: Instant) -> Result<bool, LinkError> {
        if self.is_open() {
            return Ok(true);
        }
        self.flush(&mut ctx.pool, now)?;
        // What a peer may send before it is done is bounded; and its FIN, which may stand behind what is there, raises
        // no other event.
        loop {
            match self.records(ctx, now, |_, _| ControlFlow::Break(()))? {
                _ if self.is_open() => return Ok(true),
                Input::Data => {}
                Input::Eof => return Err(LinkError::Io(ErrorKind::UnexpectedEof.into())),
                Input::WouldBlock | Input::Starved => return Ok(false),
            }
        }
    }

    /// Writes plain bytes past the outbox, as many as the kernel takes.
    pub fn write_through(&mut self, bytes: &[u8], now: Instant) -> io::Result<usize> {
        self.write_by(Stream::write, bytes, now)
    }

    fn write_by(&mut self, write: Write, bytes: &[u8], now: Instant) -> io::Result<usize> {
        let mut sent = 0;
        while self.ready.writable && sent < bytes.len() {
            match write(&mut self.stream, &bytes[sent..]) {
                Ok(count) => {
                    sent += count;
                    self.last_tx = now;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.ready.writable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    note_failure(&e, &mut self.failed, &mut self.ready);
                    return Err(e);
                }
            }
        }
        Ok(sent)
    }

    /// Sends close_notify where there is TLS. FIN is to follow once it is flushed.
    pub fn send_close_notify(&mut self, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.close(&mut ctx.reply);
        }
        self.send_reply(ctx, now)
    }

    /// Ends what is sent: all that is held, close_notify, FIN. What the peer sends can still be read. False: to be called
    /// again when more can be written.
    pub fn end_output(&mut self, ctx: &mut IoContext, now: Instant) -> Result<bool, LinkError> {
        if self.output == Output::Open && self.flush(&mut ctx.pool, now)? {
            self.output = Output::Notified;
            if let Transport::Tls(tls) = &mut self.transport {
                tls.end_output(&mut ctx.reply);
            }
            self.send_reply(ctx, now)?;
        }
        if self.output == Output::Notified && self.flush(&mut ctx.pool, now)? {
            self.stream.shutdown_write()?;
            self.output = Output::Ended;
        }
        Ok(self.output == Output::Ended)
    }

    /// The peer knows that nothing will come any more.
    pub fn has_ended_output(&self) -> bool {
        self.output == Output::Ended
    }

    /// FIN has been sent and read: there is nothing to close but the descriptor.
    pub fn is_finished(&self) -> bool {
        self.output == Output::Ended && self.finished
    }

    /// Frees what TLS takes: nothing will be read any more. Returns the close_notify that may still be sent.
    pub fn drop_tls(&mut self, ctx: &mut IoContext) -> Box<[u8]> {
        ctx.reply.clear();
        if let Transport::Tls(tls) = &mut self.transport {
            if !tls.is_handshaking() {
                tls.close(&mut ctx.reply);
            }
        }
        self.transport = Transport::Plain;
        let last_bytes = ctx.reply.as_slice().into();
        ctx.reply.clear();
        last_bytes
    }

    /// Bytes that the kernel has of ours and the peer has not acknowledged. An unnamed local peer has none.
    pub fn unsent(&self) -> usize {
        match &self.stream {
            Stream::Tcp(stream) => tcp::unsent(stream),
            Stream::Unix(_) => 0,
        }
    }

    /// Without TLS: from now on whatever closes the socket, a crash of this process included, resets the connection,
    /// or not any more. FIN would tell the peer that it has got everything. Over TLS close_notify tells that.
    pub fn set_abortive(&mut self, abortive: bool) {
        if self.is_plain() && self.abortive != abortive && self.stream.set_abortive(abortive).is_ok() {
            self.abortive = abortive;
        }
    }

    /// Gives back what belongs to the pool. The socket closes when the link is dropped.
    pub fn release(&mut self, pool: &mut Pool) {
        if !self.outbox.is_empty() {
            self.set_abortive(true);
        }
        self.outbox.clear(pool);
        self.inbox.clear(pool);
    }
}

/// A write has reported that the connection is broken, perhaps before the event that tells of it.
///
/// What the peer sent before can still be read. The kernel tells once how the connection broke, and behind that every
/// read is an end. Not so EPIPE: then the peer's FIN came first, and is to be read as such.
fn note_failure(error: &io::Error, failed: &mut bool, ready: &mut Ready) {
    *failed |= error.kind() != ErrorKind::BrokenPipe;
    ready.readable = true;
}
