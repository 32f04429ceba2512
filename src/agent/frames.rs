//! Lines that speak in frames (docs/protocol.md, section 10): one session after the other on one connection. The
//! Connector begins them, or, at a tunnel's listening end, we do.

use super::Agent;
use super::service::{Service, Topic};
use super::state::{First, Line, ServiceId, State, Task};
use crate::limits::RESET_ANSWER;
use crate::net::closing::Ending;
use crate::net::link::{Input, LinkError};
use crate::net::reactor::{Close, Key, Socket, SocketMut};
use crate::net::service::Service as _;
use crate::net::session::{Cause, Interruption, Party};
use crate::wire::proxy_protocol::{self, Origin};
use crate::wire::v2::frame::Reason;
use crate::wire::v2::open::Open;
use std::collections::HashMap;

impl Agent {
    /// Listens to a line that serves nobody: a user may come, or the end of the last session be confirmed.
    pub(super) fn read_frames(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return };
        let Some(framed) = &mut line.framed else { return };
        let heard = framed.listen(link, ctx, now);
        line.pulse.answered(framed.take_pongs(), now);
        let is_free = framed.is_free() || framed.is_asked();
        let is_over = framed.is_leaving() && framed.is_free();
        let (service, was_released) = (line.place.service, matches!(line.task, Task::Released { .. }));
        if is_free && !matches!(line.task, Task::Leaving { .. }) {
            line.task = Task::Free;
        }
        let open = if is_free { framed.accept() } else { None };
        let wanted = matches!(heard, Ok(Input::Starved)).then(|| link.record_want());
        self.reactor.wait_for_buffer(key, wanted);
        match heard {
            Ok(Input::Data) => self.reactor.again(key),
            Ok(Input::WouldBlock | Input::Starved) => {}
            Ok(Input::Eof) => return self.lost(key, Cause::Ended(key)),
            Err(fault) => return self.lost(key, Cause::Failed(key, fault)),
        }
        match open {
            Some(open) => self.connect_to_service(key, First::Open(open)),
            None if is_over => self.leave_line(key),
            None if is_free && was_released => self.offer_line(service),
            None => {}
        }
    }

    /// The Connector will not use a line again, and nobody is served on it: it is told so, too, and closes it.
    fn leave_line(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return };
        let (Task::Free, Some(framed)) = (&line.task, &mut line.framed) else { return };
        framed.bye();
        let said = framed.send_due(link, ctx, now);
        let until = now + RESET_ANSWER;
        line.task = Task::Leaving { until };
        self.reactor.wake_by(until);
        if let Err(fault) = said {
            self.lost(key, Cause::Failed(key, fault));
        }
    }

    /// A line's client has come: the Connector is to join it to the other end.
    pub(super) fn ask_for_session(&mut self, key: Key, client: Key) {
        let now = self.reactor.now;
        let open = self.open_of(client);
        let Some((SocketMut { link, state }, ctx)) = self.reactor.get_mut(key) else { return };
        let Some(framed) = state.framed_mut() else { return };
        let message = framed.open(&open, &[]);
        match link.send(&message, ctx, now) {
            Ok(()) => self.reactor.again(client),
            Err(fault) => self.end(key, Cause::Failed(key, fault)),
        }
    }

    /// What the other end is told of a client.
    fn open_of(&self, client: Key) -> Open {
        let Some(socket) = self.reactor.get(client) else { return Open::default() };
        let ends = socket.link.local_addr().map(|to| proxy_protocol::Ends { from: socket.link.peer, to });
        Open { ends, ..Open::default() }
    }

    /// Listens to a line whose client is to be joined to the other end.
    pub(super) fn read_called(&mut self, key: Key, client: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return };
        let Some(framed) = &mut line.framed else { return };
        let heard = framed.listen(link, ctx, now);
        line.pulse.answered(framed.take_pongs(), now);
        let (is_accepted, reset) = (framed.take_accepted(), framed.reset());
        let wanted = matches!(heard, Ok(Input::Starved)).then(|| link.record_want());
        if is_accepted && reset.is_none() {
            line.task = Task::Joined { local: client };
            return self.join(key, client);
        }
        self.reactor.wait_for_buffer(key, wanted);
        match (reset, heard) {
            // Of what breaks the rules behind a RESET nothing would be heard again.
            (_, Err(fault)) => self.end(key, Cause::Failed(key, fault)),
            (_, Ok(Input::Eof)) => self.end(key, Cause::Failed(key, LinkError::Truncated)),
            (Some(reason), _) => {
                if reason == Reason::NoPeer {
                    self.warn(key, Topic::OtherEnd, "Nobody is at the other end of the tunnel; a client is closed");
                }
                self.end(key, Cause::Truncated(key, LinkError::Reset(reason)));
            }
            (None, Ok(Input::Data)) => self.reactor.again(key),
            (None, Ok(Input::WouldBlock | Input::Starved)) => {}
        }
    }

    /// The Connector does not say whether a client is joined: the call is taken back.
    pub(super) fn call_is_late(&mut self, key: Key) {
        self.warn(key, Topic::OtherEnd, "The Connector does not answer for the other end; a client is closed");
        self.end(key, Cause::NoAnswer(key));
    }

    /// The session of a line is over. It serves the next one. False: it is to be closed.
    pub(super) fn release_line(&mut self, key: Key, ending: Ending, cause: &Cause) -> bool {
        let now = self.reactor.now;
        let is_over = matches!(cause, Cause::Interrupted(Interruption::Stopping | Interruption::Other(_)));
        if is_over || self.ending.is_some() {
            return false;
        }
        let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { return false };
        let Some(framed) = line.framed.as_mut().filter(|_| line.task.is_session()) else { return false };
        framed.end(ending == Ending::Complete, cause.reason());
        let sent = framed.send_due(link, ctx, now);
        let until = now + RESET_ANSWER;
        line.task = Task::Released { until };
        self.reactor.wait_for_buffer(key, None);
        self.reactor.wake_by(until);
        match sent {
            // What has come already is looked at in a turn of its own.
            Ok(()) => self.reactor.again(key),
            Err(_) => self.close(key, Close::Abort),
        }
        true
    }

    /// What a service is told of a user before anything else, if it wants that.
    pub(super) fn introduction(service: &Service, first: &First) -> Option<Vec<u8>> {
        let version = service.settings.proxy_protocol?;
        let First::Open(open) = first else { return Some(proxy_protocol::unknown(version)) };
        let header = |ends| Origin { ends, tls: open.tls, server_name: open.server_name.as_deref() }.header(version);
        Some(open.ends.map_or_else(|| proxy_protocol::unknown(version), header))
    }

    /// Gives back the connections that have not been needed for [`UNUSED`](crate::limits::UNUSED). To be called once a second.
    pub(super) fn shrink(&mut self) {
        let now = self.reactor.now;
        let mut used: HashMap<ServiceId, usize> = HashMap::new();
        for line in self.reactor.iter().filter_map(|(_, socket)| socket.state.line()) {
            *used.entry(line.place.service).or_default() += usize::from(line.task.is_session());
        }
        let mut surplus = HashMap::new();
        for service in self.services.values_mut() {
            let most = service.usage.note(used.get(&service.id).copied().unwrap_or_default(), now);
            let count = service.pool.surplus(most);
            if count > 0 {
                surplus.insert(service.id, count);
            }
        }
        for key in if surplus.is_empty() { Vec::new() } else { self.reactor.keys(is_idle) } {
            let Some((SocketMut { link, state: State::Line(line) }, ctx)) = self.reactor.get_mut(key) else { continue };
            let Some(left) = surplus.get_mut(&line.place.service).filter(|left| **left > 0) else { continue };
            let Some(framed) = &mut line.framed else { continue };
            *left -= 1;
            if !framed.has_said_bye() {
                framed.bye();
                // If that cannot be said, the connection is found broken soon.
                let _ = framed.send_due(link, ctx, now);
            }
        }
    }

    /// What the Connector has asked for besides.
    pub(super) fn note_wanted(&mut self, key: Key) {
        let now = self.reactor.now;
        let Some((SocketMut { state, .. }, _)) = self.reactor.get_mut(key) else { return };
        let wanted = state.framed_mut().map_or(0, |framed| framed.take_wanted());
        if wanted == 0 {
            return;
        }
        if let Some(service) = self.service_of_mut(key) {
            service.pool.grow(wanted.into(), now);
            self.may_fill = true;
        }
    }
}

fn is_idle(socket: &Socket<'_, State>) -> bool {
    matches!(socket.state, State::Line(Line { task: Task::Free | Task::Leaving { .. }, framed: Some(_), .. }))
}
