//! The end of a link, whatever the reason.
//!
//! Closing a socket that has unread bytes makes the kernel reset it, and the peer may lose the end of what it was
//! sent. So what is held goes out, then close_notify, then FIN, and what the peer still sends is thrown away until its
//! own FIN comes. A peer that got less than the other side had to send must not take that for an end: over TLS it gets
//! FIN without close_notify, else a reset, once it has acknowledged what there was.
//!
//! | stage | complete | truncated, TLS | truncated, plain |
//! |---|---|---|---|
//! | Delivering | what is held goes out | the same | the same |
//! | Notifying | close_notify goes out | | |
//! | Lingering | FIN is out; the peer's is awaited | the same | |
//! | Draining | | | until all is acknowledged; then the reset |
//!
//! Who owns the link has left its state before, and removes it from the reactor when this is over.

use super::buffers::IoContext;
use super::link::{Input, Link, LinkError};
use crate::limits::{CHUNKS_A_TURN, DELIVERY, LINGER, LINGER_BYTES, LINGER_LONGEST};
use std::time::{Duration, Instant};

/// The kernel raises no event for an acknowledgement: it is asked, first after the shorter of these ...
const LOOK_SOON: Duration = Duration::from_millis(10);
/// ... and then ever more seldom.
const LOOK_SELDOM: Duration = Duration::from_secs(1);

/// What the peer of a link is to conclude from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has got all that there was.
    Complete,
    /// There would have been more.
    Truncated,
}

/// The closing of a link.
#[derive(Debug)]
pub struct Closing {
    ending: Ending,
    stage: Stage,
    /// When this stage began.
    since: Instant,
    delivery: Delivery,
    /// Bytes that are still thrown away for the peer.
    patience: usize,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Delivering,
    Notifying,
    Lingering,
    Draining,
    /// There is nothing left to wait for.
    Over,
}

/// How what the kernel has of ours comes along.
#[derive(Debug)]
struct Delivery {
    /// Bytes that the peer has not acknowledged.
    unsent: usize,
    /// When they last became fewer.
    since: Instant,
    /// When to look again.
    look: Instant,
}

/// How one turn of closing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An event, or [`Closing::deadline`], will tell.
    Wait,
    /// There is more to do: after the others.
    Again,
    /// The link can be removed.
    Over,
}

impl Delivery {
    fn new(now: Instant) -> Self {
        Self { unsent: usize::MAX, since: now, look: now }
    }

    /// Asks the kernel. True: everything has been acknowledged, or nothing for too long.
    fn is_over(&mut self, link: &Link, now: Instant) -> bool {
        let unsent = link.unsent();
        if unsent < self.unsent {
            (self.unsent, self.since) = (unsent, now);
        }
        self.look = now + (now - self.since).clamp(LOOK_SOON, LOOK_SELDOM);
        unsent == 0 || now >= self.since + DELIVERY
    }
}

impl Closing {
    /// The first step.
    pub fn begin(link: &mut Link, ending: Ending, now: Instant) -> Self {
        link.set_abortive(ending == Ending::Truncated);
        Self { ending, stage: Stage::Delivering, since: now, delivery: Delivery::new(now), patience: usize::MAX }
    }

    /// The same for a peer that is not to be listened to for long: at most [`LINGER_BYTES`].
    pub fn refuse(link: &mut Link, now: Instant) -> Self {
        Self { patience: LINGER_BYTES, ..Self::begin(link, Ending::Complete, now) }
    }

    /// Nothing left to wait for: due to be removed.
    pub fn overdue(now: Instant) -> Self {
        let delivery = Delivery::new(now);
        Self { ending: Ending::Truncated, stage: Stage::Over, since: now, delivery, patience: 0 }
    }

    /// When to ask [`Closing::is_over`].
    pub fn deadline(&self, link: &Link) -> Instant {
        match self.stage {
            Stage::Delivering | Stage::Notifying => self.since.max(link.last_tx) + DELIVERY,
            Stage::Lingering => self.linger_until(link).max(self.delivery.look),
            Stage::Draining => self.delivery.look,
            Stage::Over => self.since,
        }
    }

    /// Until when the peer's FIN is awaited: longer while it still sends.
    fn linger_until(&self, link: &Link) -> Instant {
        (self.since.max(link.last_rx) + LINGER).min(self.since + LINGER_LONGEST)
    }

    /// The deadline has come: the link can be removed, unless that would now take from a slow reader what is still on
    /// its way to it.
    pub fn is_over(&mut self, link: &Link, now: Instant) -> bool {
        match self.stage {
            Stage::Delivering | Stage::Notifying | Stage::Over => true,
            // Bytes that come when the socket is closed make the kernel reset the connection.
            Stage::Lingering => {
                let still_sends = link.may_read() || link.last_rx + LINGER > now;
                !still_sends || self.delivery.is_over(link, now)
            }
            Stage::Draining => self.delivery.is_over(link, now),
        }
    }

    /// The peer has got everything that it can get.
    pub fn has_delivered(&self, link: &Link) -> bool {
        matches!(self.stage, Stage::Lingering | Stage::Draining | Stage::Over) && link.unsent() == 0
    }

    /// Goes on as far as the kernel lets it. After an error the link can be removed.
    pub fn proceed(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<Progress, LinkError> {
        if self.ending == Ending::Complete && link.is_finished() {
            return Ok(Progress::Over);
        }
        // While it cannot write, the peer may not read either.
        let input = self.discard(link, ctx, now)?;
        if link.flush(&mut ctx.pool, now)? && self.stage == Stage::Delivering {
            self.finish_writing(link, ctx, now)?;
        }
        if link.is_flushed() && self.stage == Stage::Notifying {
            link.stream().shutdown_write()?;
            self.enter(Stage::Lingering, now);
        }
        let over = match self.stage {
            Stage::Delivering | Stage::Notifying => false,
            Stage::Lingering if self.patience == 0 => self.delivery.is_over(link, now),
            Stage::Lingering => input == Input::Eof || link.is_reset(),
            Stage::Draining => link.is_reset() || self.delivery.is_over(link, now),
            Stage::Over => true,
        };
        Ok(match input {
            _ if over => Progress::Over,
            Input::Data => Progress::Again,
            Input::WouldBlock | Input::Starved | Input::Eof => Progress::Wait,
        })
    }

    fn finish_writing(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<(), LinkError> {
        match self.ending {
            Ending::Complete => link.send_close_notify(ctx, now)?,
            Ending::Truncated if link.is_plain() => {
                self.enter(Stage::Draining, now);
                return Ok(());
            }
            Ending::Truncated => {}
        }
        self.enter(Stage::Notifying, now);
        Ok(())
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        (self.stage, self.since, self.delivery) = (stage, now, Delivery::new(now));
    }

    /// Throws away what the peer still sends, a bounded amount.
    fn discard(&mut self, link: &mut Link, ctx: &mut IoContext, now: Instant) -> Result<Input, LinkError> {
        for _ in 0..CHUNKS_A_TURN {
            if self.patience == 0 {
                return Ok(Input::WouldBlock);
            }
            match link.drain(ctx, now)? {
                (Input::Data, count) => self.patience = self.patience.saturating_sub(count),
                (got, _) => return Ok(got),
            }
        }
        Ok(Input::Data)
    }
}

/// Ends a link now, with FIN rather than a reset as far as one read can help it.
pub fn end_at_once(link: &mut Link, ctx: &mut IoContext, now: Instant) {
    if link.is_finished() {
        return;
    }
    // Whatever goes wrong here goes wrong on a connection that is closed anyway.
    let _ = link.drain(ctx, now);
    if link.is_open() && link.is_flushed() {
        let _ = link.send_close_notify(ctx, now);
    }
    let _ = link.stream().shutdown_write();
}
