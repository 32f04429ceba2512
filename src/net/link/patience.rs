//! How long the kernel waits for the peer of a [`Link`] before it gives the connection up.

use super::Link;
use crate::net::stream::Stream;
use crate::net::tcp::{self, Reader};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A peer that has been silent for less is not looked at more closely.
const SILENT: Duration = Duration::from_secs(2);

/// What a peer has not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unacknowledged {
    Nothing,
    /// The kernel waits as long as for everybody.
    Data,
    /// It was sent into a silence, at about this time: the silence counts, too.
    IntoSilence(Instant),
}

/// A reader whose window has been too small for what is to be sent.
#[derive(Clone, Copy)]
pub(super) struct Slow {
    /// The kernel cannot have been probing it for longer.
    since: Instant,
    /// When a closed window was last seen.
    seen: Instant,
    /// Bytes that it has acknowledged, ...
    acknowledged: u64,
    /// ... and when they last became more, or it said that it has no room.
    moved: Instant,
}

impl Link {
    /// Sees to it that a dead peer is found and a slow one is not taken for dead. To be called once a second; cheap for
    /// whoever has taken everything.
    pub fn review_user_timeout(&mut self, now: Instant) {
        let Stream::Tcp(stream) = &self.stream else { return };
        if self.outbox.is_empty() && self.settled != Some(self.last_tx) && tcp::unsent(stream) == 0 {
            self.settled = Some(self.last_tx);
        }
        let is_settled = self.outbox.is_empty() && self.settled == Some(self.last_tx);
        let reader = match is_settled {
            true => None,
            false => tcp::reader(stream).map(|(reader, was_limited)| {
                if !was_limited {
                    self.unlimited = now;
                }
                reader
            }),
        };
        let may_hurry = self.unlimited == now;
        self.unacknowledged = review_silence(stream, self.unacknowledged, reader, may_hurry, now);
        let slow = match (&mut self.slow, reader) {
            (Some(slow), _) => slow,
            // Nothing has been seen of a small window yet.
            (None, None | Some(Reader::Receiving(_) | Reader::Mute)) => return,
            (slow, Some(Reader::Closed)) => {
                // Before that it would have been ended by the timeout that is set.
                let since = now.checked_sub(tcp::DEAD_AFTER).map_or(self.unlimited, |then| then.max(self.unlimited));
                slow.insert(Slow { since, seen: now, acknowledged: 0, moved: now })
            }
        };
        match reader {
            Some(Reader::Closed) => (slow.seen, slow.moved) = (now, now),
            Some(Reader::Receiving(acknowledged)) if slow.acknowledged != acknowledged => {
                (slow.acknowledged, slow.moved) = (acknowledged, now);
            }
            Some(Reader::Receiving(_) | Reader::Mute) => {}
            // It has taken everything. The kernel goes on counting all the same, from the first probe.
            None => slow.moved = now,
        }
        if now >= slow.seen + tcp::DEAD_AFTER * 2 || now >= slow.moved + tcp::DEAD_AFTER {
            // It reads well again, or takes nothing of what is on its way.
            self.slow = None;
            return tcp::expect_acknowledgements(stream);
        }
        if reader != Some(Reader::Mute) {
            tcp::wait_longer(stream, now - slow.since, reader == Some(Reader::Closed));
        }
    }
}

/// A peer that does not answer is dead [`tcp::DEAD_AFTER`] after it was last heard, whether something is sent to it
/// meanwhile or not. Not so one whose window has ever been too small: of it the kernel may count since long ago.
fn review_silence(
    stream: &impl AsFd,
    before: Unacknowledged,
    reader: Option<Reader>,
    may_hurry: bool,
    now: Instant,
) -> Unacknowledged {
    match (before, reader) {
        (Unacknowledged::Nothing | Unacknowledged::Data, None) => Unacknowledged::Nothing,
        (Unacknowledged::IntoSilence(_), None | Some(Reader::Closed | Reader::Mute)) => {
            tcp::expect_acknowledgements(stream);
            if reader.is_some() { Unacknowledged::Data } else { Unacknowledged::Nothing }
        }
        (Unacknowledged::IntoSilence(since), Some(Reader::Receiving(_))) => {
            if tcp::silence(stream) > now - since {
                return before;
            }
            tcp::expect_acknowledgements(stream);
            Unacknowledged::Data
        }
        (Unacknowledged::Nothing, Some(Reader::Receiving(_))) => {
            let silence = tcp::silence(stream);
            if silence < SILENT || !may_hurry {
                return Unacknowledged::Data;
            }
            tcp::wait_less(stream, silence);
            Unacknowledged::IntoSilence(now)
        }
        (Unacknowledged::Nothing | Unacknowledged::Data, Some(_)) => Unacknowledged::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::IoContext;
    use socket2::SockRef;
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    /// A link over TCP, and its other end with a small window.
    fn narrow() -> (Link, TcpStream) {
        let listener = tcp::listen(Some(Ipv4Addr::LOCALHOST.into()), 0).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(8192).unwrap();
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (stream, peer) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
        };
        (Link::plain(Stream::Tcp(stream), peer, Instant::now()), socket.into())
    }

    fn timeout(link: &Link) -> Duration {
        let Stream::Tcp(stream) = &link.stream else { panic!("a TCP stream") };
        SockRef::from(stream).tcp_user_timeout().unwrap().unwrap()
    }

    /// Reviews the link until `is_done`.
    fn review_until(link: &mut Link, is_done: impl Fn(&Link) -> bool) {
        let start = Instant::now();
        while !is_done(link) {
            assert!(start.elapsed() < Duration::from_secs(20), "it never came to that");
            std::thread::sleep(Duration::from_millis(20));
            link.review_user_timeout(Instant::now());
        }
    }

    /// The kernel counts from the first probe, which may be long before a closed window is seen here, and does not
    /// always begin anew when all has been taken.
    #[test]
    fn a_slow_reader_is_waited_for_longer_and_never_for_less() {
        let (mut link, mut reader) = narrow();
        let mut ctx = IoContext::new(crate::net::buffers::Pool::new(1, 0).unwrap());
        let mut left = link.write_through(&[0; 100_000], Instant::now()).unwrap();
        review_until(&mut link, |link| link.slow.is_some());
        assert!(timeout(&link) >= tcp::DEAD_AFTER, "{:?}", timeout(&link));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while left > 0 {
                    left = left.saturating_sub(reader.read(&mut [0; 4096]).unwrap());
                }
            });
        });
        review_until(&mut link, |link| link.settled == Some(link.last_tx));
        assert!(timeout(&link) > tcp::DEAD_AFTER, "{:?}", timeout(&link));
        link.release(&mut ctx.pool);
    }
}
