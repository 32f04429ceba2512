//! Private pipes: who is joined to whom (docs/protocol.md, sections 6 and 10).
//!
//! Two agents of version 1 are joined as soon as both are free. One that speaks in frames either calls, that is, it begins
//! the sessions on its connection, or serves sessions that the other side begins; its hello says which. So a session has
//! two connections of these kinds:
//!
//! | begins it | serves it | how |
//! |---|---|---|
//! | frames, calls | frames | OPEN is passed on, and answered with ACCEPT |
//! | frames, calls | version 1 | the words of a tunnel are said to the latter ([`super::tunnel`]) |
//! | version 1 | frames | OPEN at its first payload; the words of a tunnel are answered |

use super::pipe::{PipeKey, PipePort};
use super::state::{Agent, Call, Duty, State};
use super::users::SOON;
use super::{Relay, Topic};
use crate::limits::CALL;
use crate::net::framed::Framed;
use crate::net::link::{Input, LinkError};
use crate::net::pump::send_payload;
use crate::net::reactor::{Close, Key, Socket, SocketMut};
use crate::net::service::Service;
use crate::net::session::{self, Cause, Party};
use crate::throttle::and_more;
use crate::wire::tunnel::{CALLS, is_call};
use crate::wire::v2::frame::Reason;
use crate::wire::v2::open::Open;
use log::warn;

impl Relay {
    /// Joins whoever can be joined, those that have been there longest first.
    pub(super) fn join_sides(&mut self, pipe: PipeKey) {
        let [one, two] = [0, 1].map(|side| PipePort { pipe, side });
        while let (Some(left), Some(right)) = (self.first_plain(one), self.first_plain(two)) {
            let [left_calls, right_calls] = [left, right].map(|key| self.has_called(key));
            self.begin_session([left, right]);
            for (to, is_called) in [(right, left_calls), (left, right_calls)] {
                if is_called {
                    self.pass_call_on(to);
                }
            }
            self.reactor.again(left);
        }
        for place in [one, two] {
            self.serve_callers(place);
            self.serve_plain_callers(place);
        }
    }

    /// The free agent of version 1 that has been here longest.
    fn first_plain(&mut self, place: PipePort) -> Option<Key> {
        let has_plain = self.mappings.agents(place)?.has_plain();
        if has_plain { self.first_fit(place, is_plain) } else { None }
    }

    /// Finds partners for those of this port that want one.
    fn serve_callers(&mut self, place: PipePort) {
        let other = place.opposite();
        while let Some(caller) = self.mappings.agents(place).and_then(|agents| agents.calling.first()) {
            let Some(open) = self.call_of(caller) else { return };
            if let Some(server) = self.first_fit(other, Agent::serves) {
                self.connect(caller, server, &open);
            } else if let Some(plain) = self.first_fit(other, answers_words) {
                self.call_plain(caller, plain);
            } else {
                return self.note_want(other);
            }
        }
    }

    /// The same for those of version 1 that have called the other end of a tunnel.
    fn serve_plain_callers(&mut self, place: PipePort) {
        let other = place.opposite();
        let has_framed = self.mappings.agents(other).is_some_and(|agents| agents.has_framed());
        if !has_framed || !self.mappings.agents(place).is_some_and(|agents| agents.has_plain()) {
            return;
        }
        while let Some(plain) = self.first_fit(place, |agent| is_plain(agent) && agent.has_called) {
            let Some(server) = self.first_fit(other, Agent::serves) else { return };
            self.serve_plain(plain, server, CALLS);
        }
    }

    /// A free agent that calls has asked for a session.
    pub(super) fn take_call(&mut self, key: Key) {
        let now = self.reactor.now;
        let until = now + CALL;
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return };
        let place = agent.place;
        let Some(open) = agent.framed.as_mut().and_then(|framed| framed.accept()) else { return };
        let Some(agents) = self.mappings.agents(place) else { return };
        let call = Call { ticket: agents.calling.join(key), open, until };
        std::mem::replace(&mut agent.duty, Duty::Calling(Box::new(call))).leave(agents);
        self.reactor.wake_by(until);
        self.join_sides(place.pipe);
        // It may go away while it waits. Half-closed sessions have less patience from now on.
        self.reactor.again(key);
        self.reactor.wake_by(now + SOON);
    }

    /// Listens to an agent that has called and has not been joined. Nothing but its leaving is expected.
    pub(super) fn hear_caller(&mut self, key: Key) {
        let has_partner = self.reactor.get(key).is_some_and(|it| it.state.partner().is_some());
        let Some((heard, reset)) = session::listen(&mut self.reactor, key) else { return };
        match (reset, heard) {
            // Of what breaks the rules behind a RESET nothing would be heard again.
            (_, Err(fault)) => self.end(key, Cause::Failed(key, fault)),
            (_, Ok(Input::Eof)) => self.end(key, Cause::Failed(key, LinkError::Truncated)),
            (Some(reason), _) if has_partner => self.end(key, Cause::Truncated(key, LinkError::Reset(reason))),
            (Some(_), _) => self.refuse_call(key, Reason::Broken),
            (None, Ok(Input::Data)) => self.reactor.again(key),
            (None, Ok(Input::WouldBlock | Input::Starved)) => {}
        }
    }

    /// An agent has waited for one of the other side in vain.
    pub(super) fn nobody_came(&mut self, key: Key) {
        let Some(Socket { link, state, .. }) = self.reactor.get(key) else { return };
        let (Some(place), peer, now) = (state.agent().map(|agent| agent.place.opposite()), link.peer, self.reactor.now)
        else {
            return;
        };
        if let Some(port) = self.mappings.port(place) {
            if let Some(unsaid) = self.log.may_say(Topic::NoAgent(port), now) {
                let (place, more) = (self.mappings.place(place), and_more(unsaid));
                warn!("{place}: no agent was free for agent {peer} of the other port{more}");
            }
        }
        self.refuse_call(key, Reason::NoPeer);
    }

    /// An agent that has called is joined to nobody.
    fn refuse_call(&mut self, key: Key, reason: Reason) {
        if !self.release_framed(key, false, reason) {
            self.close(key, Close::Abort);
        }
    }

    /// Joins an agent that has called to one of the other side, both of which speak in frames.
    fn connect(&mut self, caller: Key, server: Key, open: &Open) {
        self.begin_session([caller, server]);
        if self.open_on(server, open, &[]) && self.answer(caller) {
            self.relay(server, caller);
        }
    }

    /// What an agent has called with.
    fn call_of(&self, key: Key) -> Option<Open> {
        match self.reactor.get(key)?.state.agent()? {
            Agent { duty: Duty::Calling(call), .. } => Some((*call.open).clone()),
            _ => None,
        }
    }

    /// The two are joined from now on.
    pub(super) fn begin_session(&mut self, [one, other]: [Key; 2]) {
        self.join(one, other);
        self.join(other, one);
        session::begin(&mut self.reactor, [one, other]);
        self.counters.sessions += 1;
    }

    /// Tells an agent of a session that it is to serve, and that begins with this payload. False: it is gone.
    pub(super) fn open_on(&mut self, key: Key, open: &Open, payload: &[u8]) -> bool {
        let Some(place) = self.place_of(key) else { return false };
        let wants = self.wants(place);
        if let Some(agents) = self.mappings.agents(place) {
            agents.wanted.asked = Some(key);
        }
        self.say(key, wants, |framed| framed.open(open, payload))
    }

    /// Tells an agent that has called that its session begins. False: it is gone.
    pub(super) fn answer(&mut self, key: Key) -> bool {
        let Some(place) = self.place_of(key) else { return false };
        let wants = self.wants_of_caller(place);
        self.say(key, wants, |framed| framed.answer().to_vec())
    }

    fn say(&mut self, key: Key, wants: u16, message: impl FnOnce(&mut Framed) -> Vec<u8>) -> bool {
        let now = self.reactor.now;
        let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(key) else { return false };
        let Some(framed) = state.framed_mut() else { return false };
        let message = message(framed);
        framed.want(wants);
        match link.send(&message, ctx, now).and_then(|()| framed.send_due(link, ctx, now)) {
            Ok(()) => true,
            Err(fault) => {
                self.end(key, Cause::Failed(key, fault));
                false
            }
        }
    }

    fn place_of(&self, key: Key) -> Option<PipePort> {
        Some(self.reactor.get(key)?.state.agent()?.place)
    }

    /// A free agent of version 1 has sent payload. True: it is free no longer.
    pub(super) fn hear_plain(&mut self, key: Key, said: &[u8]) -> bool {
        let Some((SocketMut { state: State::Agent(agent), .. }, _)) = self.reactor.get_mut(key) else { return true };
        let (place, is_settled) = (agent.place, agent.unsettled.is_none());
        if is_call(said) {
            // Nobody's leftovers. It is repeated to whom it is joined to.
            (agent.has_called, agent.unsettled) = (true, None);
            self.join_sides(place.pipe);
            return !self.reactor.get(key).and_then(|it| it.state.agent()).is_some_and(Agent::is_free);
        }
        let other = place.opposite();
        let has_framed = self.mappings.agents(other).is_some_and(|agents| agents.has_framed());
        match if has_framed && is_settled { self.first_fit(other, Agent::serves) } else { None } {
            Some(server) => {
                self.serve_plain(key, server, said);
                true
            }
            None => {
                self.mappings.count_discarded(place, said.len() as u64);
                self.unsettle(key);
                false
            }
        }
    }

    /// Joins an agent of version 1, which has said this, to one that speaks in frames.
    fn serve_plain(&mut self, plain: Key, server: Key, said: &[u8]) {
        self.begin_session([plain, server]);
        if !self.open_on(server, &Open::default(), &[]) {
            return;
        }
        if is_call(said) {
            return self.answer_plain(plain, server);
        }
        self.count(plain, said.len() as u64);
        let now = self.reactor.now;
        let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(server) else { return };
        let Some(framed) = state.framed() else { return };
        let sent = framed.data(said).try_for_each(|message| link.send(&message, ctx, now));
        match sent {
            Ok(()) => self.relay(server, plain),
            Err(fault) => self.end(server, Cause::Failed(server, fault)),
        }
    }

    fn has_called(&self, key: Key) -> bool {
        self.reactor.get(key).and_then(|socket| socket.state.agent()).is_some_and(|agent| agent.has_called)
    }

    /// What the agent that `to` is joined to has said before they were: it would say it again, but only later.
    fn pass_call_on(&mut self, to: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Agent(agent) }, ctx)) = self.reactor.get_mut(to) else { return };
        if agent.welcome.is_some() {
            return;
        }
        let marked = agent.marked.as_mut().map_or(Ok(()), |marked| marked.begin_payload(link, ctx, now));
        if let Err(fault) = marked.and_then(|()| send_payload(link, CALLS, ctx, now)) {
            self.end(to, Cause::Failed(to, fault));
        }
    }

    /// Moves what there is to move between an agent and who it is joined to.
    pub(super) fn relay_joined(&mut self, key: Key, peer: Key) {
        let is = |key: Key, what: fn(&Agent) -> bool| {
            self.reactor.get(key).and_then(|socket| socket.state.agent()).is_some_and(what)
        };
        let calls = is(key, Agent::calls);
        match is(peer, |agent| matches!(agent.duty, Duty::Opening { .. })) {
            // What one says that serves waits until the words of the tunnel have been said.
            true if calls => self.hear_caller(key),
            true => {}
            // Who has called may send no more and still be answered, as a user may.
            false if calls => self.relay(peer, key),
            false => self.relay(key, peer),
        }
    }
}

/// It speaks version 1.
fn is_plain(agent: &Agent) -> bool {
    agent.framed.is_none()
}

/// It speaks version 1, and may have a service.
fn answers_words(agent: &Agent) -> bool {
    is_plain(agent) && !agent.has_called && agent.welcome.is_none()
}
