//! Authorized agents that are joined to nobody: heartbeats, and being ready for the next user or peer.

use super::pipe::{Agents, Ends, PipeKey, Place};
use super::state::{Agent, State};
use super::{Relay, Topic};
use crate::net::buffers::Desk;
use crate::net::closing::Ending;
use crate::net::link::{Fault, Got, Link};
use crate::net::marked::Marked;
use crate::net::reactor::{Key, Socket};
use crate::net::wire::{self, BEAT};
use crate::throttle::and_more;
use log::info;
use std::time::Instant;

/// Bytes or records of a free agent that are looked at in one turn.
const GLANCES: usize = 16;
/// Plain bytes that are read at once from an agent that is joined to nobody.
const GLANCE: usize = 16 * 1024;

impl Relay {
    /// The agent port at `place`, if the mapping is still open.
    pub(super) fn agents(&mut self, place: Place) -> Option<&mut Agents> {
        self.pipes.get_mut(place.pipe)?.agents(place.side)
    }

    /// The agent is free, and the last of those that are.
    pub(super) fn set_free(&mut self, key: Key, agent: Agent) {
        let Some(agents) = self.agents(agent.place) else { return };
        let ticket = agents.free.join(key);
        self.set_state(key, State::Free { agent, ticket });
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            socket.link.trust();
        }
    }

    /// It has had the time to read `AUTHORIZED`.
    pub(super) fn has_been_welcomed(&mut self, key: Key) {
        let Some((socket, _)) = self.reactor.get_mut(key) else { return };
        match &mut socket.state {
            State::Free { agent, .. } => {
                agent.welcome = None;
                // The scan that brought us here has not looked at the deadline behind this one.
                let next = agent.unsettled;
                next.into_iter().for_each(|until| self.reactor.wake_by(until));
                self.offer(key);
            }
            State::Joined { agent, .. } => {
                agent.welcome = None;
                self.reactor.again(key);
            }
            _ => {}
        }
    }

    /// It must read `AUTHORIZED` by itself: nothing may follow yet.
    pub(super) fn is_being_welcomed(&self, key: Key) -> bool {
        self.state(key).and_then(State::agent).is_some_and(|agent| agent.welcome.is_some())
    }

    /// The agent that has been free longest, and is neither stuck nor gone.
    pub(super) fn first_free(&mut self, place: Place) -> Option<Key> {
        loop {
            let Self { pipes, reactor, .. } = self;
            let free = &pipes.get_mut(place.pipe)?.agents(place.side)?.free;
            let key = free.iter().find(|&key| reactor.get(key).is_some_and(is_fit))?;
            // Its end may have come in this very turn, and not have had its own. At a private pipe what it has said may
            // be for the one that has just come; at a public one it is for nobody.
            let is_public = matches!(pipes.get(place.pipe)?.ends, Ends::Public { .. });
            if is_public {
                reactor.get_mut(key)?.0.link.look_again();
                self.attend(key);
            }
            let now = self.reactor.now;
            if let Some((Socket { link, .. }, _)) = self.reactor.get_mut(key) {
                // Where there was nothing to read there is no FIN. Else one may stand behind it.
                if !is_public || link.may_read() || link.heard == now {
                    link.look_for_end();
                }
            }
            if self.reactor.get(key).is_some_and(is_fit) {
                return Some(key);
            }
        }
    }

    /// Finds somebody to join a free agent to.
    pub(super) fn offer(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let State::Free { agent: Agent { place, .. }, .. } = socket.state else { return };
        // What it sent behind its passcode is dealt with as a free agent's.
        self.reactor.again(key);
        match self.pipes.get(place.pipe).map(|pipe| &pipe.ends) {
            Some(Ends::Public { users, .. }) => {
                if let Some(user) = users.next_waiting() {
                    self.reactor.again(user);
                }
            }
            Some(Ends::Private(_)) => self.join_sides(place.pipe),
            None => {}
        }
    }

    /// Joins the free agents of both sides of a private pipe, those that have been free longest first.
    fn join_sides(&mut self, pipe: usize) {
        let [one, two] = [0, 1].map(|side| Place { pipe, side });
        while let (Some(left), Some(right)) = (self.first_free(one), self.first_free(two)) {
            self.join(left, right);
            self.join(right, left);
            self.reactor.again(left);
        }
    }

    /// A free agent is free no longer: it belongs to `peer`.
    pub(super) fn join(&mut self, key: Key, peer: Key) {
        let Some(State::Free { agent, ticket }) = self.take_state(key) else { return };
        if let Some(agents) = self.agents(agent.place) {
            agents.free.leave(ticket);
        }
        if let Some((socket, _)) = self.reactor.get_mut(key) {
            socket.link.set_abortive(true);
            socket.state = State::Joined { agent, peer };
        }
    }

    /// Listens to a free agent: heartbeats are answered, payload is for nobody.
    pub(super) fn attend(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((socket, desk)) = self.reactor.get_mut(key) else { return };
        let State::Free { agent, .. } = &mut socket.state else { return };
        let mut discarded = 0;
        let was_stuck = !socket.link.is_flushed();
        let heard = listen_to(&mut socket.link, agent, &mut discarded, desk, now);
        let (place, is_fit_again) = (agent.place, was_stuck && socket.link.is_flushed());
        let wanted = matches!(heard, Ok(Got::Starved)).then(|| socket.link.record_want());
        self.count_discarded(place, discarded);
        if discarded > 0 {
            self.unsettle(key);
        }
        self.reactor.note_hunger(key, wanted);
        match heard {
            Ok(Got::Some) => self.reactor.again(key),
            Ok(Got::Dry | Got::Starved) => {}
            Ok(Got::End) => self.part_with_agent(key),
            Err(fault) => self.abort(key, &fault),
        }
        if is_fit_again {
            // Nobody was given to it meanwhile.
            self.offer(key);
        }
    }

    /// Counts payload of an agent that was joined to nobody.
    pub(super) fn count_discarded(&mut self, place: Place, bytes: u64) {
        if let Some(pipe) = self.pipes.get_mut(place.pipe) {
            pipe.traffic.discarded += bytes;
        }
    }

    /// An agent has been silent for longer than its mapping allows.
    pub(super) fn absent(&mut self, key: Key) {
        let Some(socket) = self.reactor.get(key) else { return };
        let (State::Free { agent, .. } | State::Joined { agent, .. }) = &socket.state else { return };
        let (place, peer, now) = (agent.place, socket.link.peer, self.reactor.now);
        if let Some(port) = self.agents(place).map(|agents| agents.door.port) {
            if let Some(unsaid) = self.log.may_say(Topic::Absence(port), now) {
                info!("Port {port}: agent {peer} has not been heard of, closed{}", and_more(unsaid));
            }
        }
        self.abort(key, &"it has not been heard of for longer than its heartbeatabsencethreshold");
    }

    /// A free agent has left.
    fn part_with_agent(&mut self, key: Key) {
        if let Some(pipe) = self.leave_pool(key) {
            self.close(key, Ending::Complete, Some(pipe));
        }
    }

    /// Takes a free agent out of the counts of its pipe.
    pub(super) fn leave_pool(&mut self, key: Key) -> Option<PipeKey> {
        let free = |state: &State| matches!(state, State::Free { .. });
        let address = self.reactor.get(key)?.link.peer.ip();
        let Some(State::Free { agent, ticket }) = self.take_state_if(key, free) else { return None };
        let agents = self.agents(agent.place)?;
        agents.free.leave(ticket);
        agents.count_out(address);
        Some(agent.place.pipe)
    }
}

/// It is free, and can be sent something as far as anybody knows.
fn is_fit(Socket { link, state, .. }: &Socket<State>) -> bool {
    let settled = matches!(state, State::Free { agent, .. } if agent.unsettled.is_none());
    settled && link.is_flushed() && !link.has_hung_up()
}

fn listen_to(
    link: &mut Link,
    agent: &mut Agent,
    discarded: &mut u64,
    desk: &mut Desk,
    now: Instant,
) -> Result<Got, Fault> {
    answer_beats(link, agent, desk, now)?;
    if let Some(marked) = agent.marked.as_mut().filter(|marked| !marked.hears_payload()) {
        let (heard, got) = marked.hear(link, desk, now)?;
        agent.owe(heard);
        answer_beats(link, agent, desk, now)?;
        return Ok(got);
    }
    // Nobody loses anything by what is taken for heartbeats here.
    let most_beats = if agent.marked.is_some() { 0 } else { usize::MAX };
    for _ in 0..GLANCES {
        let mut heard = 0;
        let got = link.receive(GLANCE, desk, now, |message| {
            heard = wire::beats(message, most_beats);
            if heard == 0 {
                *discarded += message.len() as u64;
            }
        })?;
        agent.owe(heard);
        answer_beats(link, agent, desk, now)?;
        if got != Got::Some {
            return Ok(got);
        }
    }
    Ok(Got::Some)
}

/// Sends what is held, and then answers heartbeats, each by a write of its own.
///
/// What cannot be sent now (all relay buffers are in use, and the kernel takes nothing) is owed until it can.
pub(super) fn answer_beats(link: &mut Link, agent: &mut Agent, desk: &mut Desk, now: Instant) -> Result<(), Fault> {
    if agent.marked.as_ref().is_some_and(Marked::sends_payload) {
        agent.owed = 0;
    }
    while link.flush(&mut desk.pool, now)? && agent.owed > 0 && link.can_send(&desk.pool) {
        link.send(BEAT, desk, now)?;
        agent.owed -= 1;
        agent.beaten = now;
        agent.held_back = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffers::{Pool, Purpose};
    use crate::net::stream::Stream;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// A link whose kernel buffer is full, and its other end.
    fn full(desk: &mut Desk) -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(ours));
        let mut link = Link::plain(stream, ([0, 0, 0, 0], 0).into(), Instant::now());
        while link.write_through(&[b'x'; 4096], Instant::now()).unwrap() > 0 {}
        assert!(
            !link.can_send(&Pool::new(0, 0).unwrap())
                && link.can_send(&desk.pool) == desk.pool.has_any(Purpose::Payload)
        );
        (link, theirs)
    }

    fn owing() -> Agent {
        let mut agent = Agent::new(crate::relay::pipe::Place { pipe: 0, side: 0 }, None, Instant::now());
        agent.owe(1);
        agent
    }

    #[test]
    fn without_a_buffer_an_answer_is_owed_and_ends_nothing() {
        let mut desk = Desk::new(Pool::new(0, 0).unwrap());
        let (mut link, _theirs) = full(&mut desk);
        let mut agent = owing();
        answer_beats(&mut link, &mut agent, &mut desk, Instant::now()).unwrap();
        assert_eq!(agent.owed, 1);
    }

    #[test]
    fn an_answer_that_was_held_goes_out_by_itself() {
        let mut desk = Desk::new(Pool::new(1, 0).unwrap());
        let (mut link, mut theirs) = full(&mut desk);
        let mut agent = owing();
        answer_beats(&mut link, &mut agent, &mut desk, Instant::now()).unwrap();
        assert!(agent.owed == 0 && !link.is_flushed());
        let mut heard = Vec::new();
        let _ = theirs.read_to_end(&mut heard);
        link.note_writable();
        answer_beats(&mut link, &mut agent, &mut desk, Instant::now()).unwrap();
        assert!(link.is_flushed());
        let _ = theirs.read_to_end(&mut heard);
        assert!(heard.ends_with(BEAT));
    }
}
