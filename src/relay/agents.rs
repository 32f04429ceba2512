//! Authorized agents that are joined to nobody: heartbeats, and being ready for the next user or peer.

use super::pipe::{Ends, PipePort};
use super::state::{Agent, Duty, State};
use super::{Relay, Topic};
use crate::limits::{MESSAGES_A_TURN, SMALL_READ};
use crate::net::buffers::IoContext;
use crate::net::link::{Input, Link, LinkError};
use crate::net::reactor::{Key, Socket, SocketMut};
use crate::net::service::Service;
use crate::net::session::Cause;
use crate::throttle::and_more;
use crate::wire::v1;
use log::info;
use std::time::Instant;

impl Relay {
    /// It has had the time to read `AUTHORIZED`.
    pub(super) fn has_been_welcomed(&mut self, key: Key) {
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return };
        agent.welcome = None;
        if agent.is_free() {
            // The scan that brought us here has not looked at the deadline behind this one.
            let next = agent.unsettled;
            next.into_iter().for_each(|until| self.reactor.wake_by(until));
            self.offer(key);
        } else {
            self.reactor.again(key);
        }
    }

    /// The agent for the next user: those that can be told of it come first.
    pub(super) fn first_free(&mut self, place: PipePort) -> Option<Key> {
        let has_framed = self.mappings.agents(place)?.has_framed();
        let framed = if has_framed { self.first_fit(place, |agent| agent.framed.is_some()) } else { None };
        framed.or_else(|| self.first_fit(place, |_| true))
    }

    /// The agent of this kind that has been free longest, and is neither stuck nor gone.
    pub(super) fn first_fit(&mut self, place: PipePort, is_one: impl Fn(&Agent) -> bool) -> Option<Key> {
        let is_one = |socket: Socket<'_, State>| is_fit(&socket) && socket.state.agent().is_some_and(&is_one);
        loop {
            let Self { mappings, reactor, .. } = self;
            let key = mappings.agents(place)?.free.iter().find(|key| reactor.get(*key).is_some_and(is_one))?;
            // Its end may have come in this very turn, and not have had its own. At a private pipe what it has said may
            // be for the one that has just come; at a public one it is for nobody.
            let is_public = matches!(mappings.get(place.pipe)?.ends, Ends::Public { .. });
            if is_public {
                reactor.get_mut(key)?.0.link.look_again();
                self.read_free(key);
            }
            let now = self.reactor.now;
            if let Some((SocketMut { link, .. }, _)) = self.reactor.get_mut(key) {
                // Where there was nothing to read there is no FIN. Else one may stand behind it.
                if !is_public || link.may_read() || link.last_rx == now {
                    link.look_for_end();
                }
            }
            if self.reactor.get(key).is_some_and(is_one) {
                return Some(key);
            }
        }
    }

    /// Finds somebody to join a free agent to.
    pub(super) fn offer(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let Some(place) = socket.state.agent().filter(|agent| agent.is_free()).map(|agent| agent.place) else { return };
        // What it sent behind its passcode is dealt with as a free agent's.
        self.reactor.again(key);
        match self.mappings.get(place.pipe).map(|pipe| &pipe.ends) {
            Some(Ends::Public { users, .. }) => {
                users.next_waiting().into_iter().for_each(|user| self.reactor.again(user));
                if self.is_framed(key) {
                    // They may have come before there was anybody who could be told of them. Not the first one alone:
                    // it may be refused.
                    let is_open = |key: &Key| self.reactor.get(*key).is_some_and(|socket| socket.link.is_open());
                    let silent: Vec<Key> = users.silent.iter().filter(is_open).collect();
                    silent.into_iter().for_each(|user| self.reactor.again(user));
                }
            }
            Some(Ends::Private(_)) => self.join_sides(place.pipe),
            None => {}
        }
    }

    /// A free agent is free no longer: it belongs to `peer`.
    pub(super) fn join(&mut self, key: Key, peer: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return };
        (agent.since, agent.moved) = (now, now);
        (agent.has_called, agent.half_closed) = (false, None);
        let left = std::mem::replace(&mut agent.duty, Duty::Joined(peer));
        if let Some(agents) = self.mappings.agents(agent.place) {
            agents.joined += 1;
            left.leave(agents);
        }
    }

    /// Listens to a free agent: heartbeats are answered, payload is for nobody.
    pub(super) fn read_free(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(key) else { return };
        if !agent.is_free() {
            return;
        }
        let (mut discarded, mut said) = (0, Vec::new());
        let is_private = self.mappings.get(agent.place.pipe).is_some_and(|it| matches!(it.ends, Ends::Private(_)));
        let was_stuck = !link.is_flushed();
        let heard = match &mut agent.framed {
            Some(framed) => framed.listen(link, ctx, now),
            None if is_private => listen_to(link, agent, |message| said.extend_from_slice(message), ctx, now),
            None => listen_to(link, agent, |message| discarded += message.len() as u64, ctx, now),
        };
        let is_leaving = agent.framed.as_ref().is_some_and(|framed| framed.is_leaving());
        let has_called = agent.framed.as_ref().is_some_and(|framed| framed.is_asked());
        let (place, is_fit_again) = (agent.place, was_stuck && link.is_flushed());
        let wanted = matches!(heard, Ok(Input::Starved)).then(|| link.record_want());
        self.mappings.count_discarded(place, discarded);
        if discarded > 0 {
            self.unsettle(key);
        }
        self.reactor.wait_for_buffer(key, wanted);
        if !said.is_empty() && self.hear_plain(key, &said) {
            return;
        }
        match heard {
            Ok(_) if has_called => return self.take_call(key),
            Ok(_) if is_leaving => return self.dismiss(key),
            Ok(Input::Data) => self.reactor.again(key),
            Ok(Input::WouldBlock | Input::Starved) => {}
            Ok(Input::Eof) => self.end(key, Cause::Ended(key)),
            Err(fault) => self.end(key, Cause::Failed(key, fault)),
        }
        if is_fit_again {
            // Nobody was given to it meanwhile.
            self.offer(key);
        }
    }

    /// An agent has been silent for longer than its mapping allows.
    pub(super) fn absent(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let Some(agent) = socket.state.agent() else { return };
        let (place, peer, now) = (agent.place, socket.link.peer, self.reactor.now);
        if let Some(port) = self.mappings.agents(place).map(|agents| agents.binding.port) {
            if let Some(unsaid) = self.log.may_say(Topic::Absence(port), now) {
                let (place, more) = (self.mappings.place(place), and_more(unsaid));
                info!("{place}: agent {peer} has not been heard of, closed{more}");
            }
        }
        self.end(key, Cause::Absent(key));
    }
}

/// It is free, and can be sent something as far as anybody knows.
fn is_fit(Socket { link, state }: &Socket<'_, State>) -> bool {
    let settled = state.agent().is_some_and(|agent| agent.is_free() && agent.unsettled.is_none());
    settled && link.is_flushed() && !link.has_hung_up()
}

fn listen_to(
    link: &mut Link,
    agent: &mut Agent,
    mut payload: impl FnMut(&[u8]),
    ctx: &mut IoContext,
    now: Instant,
) -> Result<Input, LinkError> {
    agent.answer_beats(link, ctx, now)?;
    if let Some(marked) = agent.marked.as_mut().filter(|marked| !marked.hears_payload()) {
        let (heard, got) = marked.hear(link, ctx, now)?;
        agent.owe(heard);
        agent.answer_beats(link, ctx, now)?;
        return Ok(got);
    }
    // Nobody loses anything by what is taken for heartbeats here.
    let most_beats = if agent.marked.is_some() { 0 } else { usize::MAX };
    for _ in 0..MESSAGES_A_TURN {
        let mut heard = 0;
        let got = link.receive(SMALL_READ, ctx, now, |message| {
            heard = v1::beats(message, most_beats);
            if heard == 0 {
                payload(message);
            }
        })?;
        agent.owe(heard);
        agent.answer_beats(link, ctx, now)?;
        if got != Input::Data {
            return Ok(got);
        }
    }
    Ok(Input::Data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::{Pool, Purpose};
    use crate::net::stream::Stream;
    use crate::relay::queue::Queue;
    use crate::wire::v1::BEAT;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A link whose kernel buffer is full, and its other end.
    fn full(ctx: &mut IoContext) -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(ours));
        let mut link = Link::plain(stream, ([0, 0, 0, 0], 0).into(), Instant::now());
        while link.write_through(&[b'x'; 4096], Instant::now()).unwrap() > 0 {}
        assert!(
            !link.can_send(&Pool::new(0, 0).unwrap())
                && link.can_send(&ctx.pool) == (ctx.pool.has_any(Purpose::Payload))
        );
        (link, theirs)
    }

    fn owing() -> Agent {
        let network = crate::network::Network::of([127, 0, 0, 1].into());
        let mut agent = Agent::new(
            crate::relay::pipe::PipePort { pipe: 0, side: 0 },
            network,
            Queue::default().join(1),
            None,
            Instant::now(),
        );
        agent.owe(1);
        agent
    }

    #[test]
    fn without_a_buffer_an_answer_is_owed_and_ends_nothing() {
        let mut ctx = IoContext::new(Pool::new(0, 0).unwrap());
        let (mut link, _theirs) = full(&mut ctx);
        let mut agent = owing();
        agent.answer_beats(&mut link, &mut ctx, Instant::now()).unwrap();
        assert_eq!(agent.owed, 1);
    }

    #[test]
    fn an_answer_that_was_held_goes_out_by_itself() {
        let mut ctx = IoContext::new(Pool::new(1, 0).unwrap());
        let (mut link, mut theirs) = full(&mut ctx);
        let mut agent = owing();
        agent.answer_beats(&mut link, &mut ctx, Instant::now()).unwrap();
        assert!(agent.owed == 0 && !link.is_flushed());
        let mut heard = Vec::new();
        let _ = theirs.read_to_end(&mut heard);
        link.note_writable();
        agent.answer_beats(&mut link, &mut ctx, Instant::now()).unwrap();
        assert!(link.is_flushed());
        let _ = theirs.read_to_end(&mut heard);
        assert!(heard.ends_with(BEAT));
    }
}
