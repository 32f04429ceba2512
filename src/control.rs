//! The control thread: answers API requests, owns the list of mappings and their ports, and writes
//! `configs.json`.
//!
//! Requests come through a private socket that only the event loop connects to, one connection a request
//! (`requests`). The thread asks the loop to open and close
//! through a channel and waits for its answers; the loop never waits for the thread.

mod access;
mod answer;
mod api;
pub mod commandline;
mod direct;
mod figures;
pub(crate) mod form;
mod metrics;
mod registry;
mod reloads;
mod requests;
mod status;

pub use access::{TokenError, read_token};

use crate::config::Config;
use crate::limits::{ANSWER_AT_ONCE, BATCH, LONG_ANSWERS};
use crate::mapping::Mapping;
use crate::relay::command::{EventLoop, Gone};
use crate::secret::Secret;
use crate::store::Store;
use crate::throttle::is_within_budget;
use access::Access;
use answer::Answer;
use api::{Api, Call};
use direct::Callers;
use log::error;
use registry::Registry;
use reloads::Reloads;
use requests::{Request, Requests};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

/// How long new settings may lie about before the thread looks.
const LOOK: Duration = Duration::from_secs(1);

/// What the control thread is made of.
pub struct Setup {
    pub config: Config,
    /// What the key `apitoken` names.
    pub token: Option<Secret>,
    pub store: Store,
    /// What was in the store.
    pub mappings: Vec<Mapping>,
    /// The event loop; it must be running before [`Control::restore`].
    pub relay: Box<dyn EventLoop>,
    /// The private socket, which the loop connects to for every request.
    pub listener: UnixListener,
    pub reloads: Receiver<Reload>,
}

/// What has become of a reload.
pub enum Reload {
    /// These settings shall be followed from now on: valid, and loaded from the same file.
    TakenOver {
        config: Box<Config>,
        /// What the key `apitoken` names.
        token: Option<Secret>,
    },
    /// Something was wrong, and nothing has changed.
    Failed,
}

/// The control thread's state.
pub struct Control {
    api: Api,
    requests: Requests,
    reloads: Receiver<Reload>,
    /// Each thread that writes a long answer holds a clone.
    writers: Arc<()>,
}

impl Control {
    /// Puts the thread's state together. Errors: the private socket cannot be served.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let Setup { config, token, store, mappings, relay, listener, reloads } = setup;
        let requests = Requests::new(listener)?;
        let api = Api {
            registry: Registry::new(store, mappings, config.ports, relay),
            access: Access::new(config.controllers, token),
            callers: Callers::default(),
            broker: config.broker,
            dev: config.dev,
            started: Instant::now(),
            reloads: Reloads::default(),
            answers: BTreeMap::new(),
        };
        Ok(Self { api, requests, reloads, writers: Arc::default() })
    }

    /// Opens the stored mappings. When this returns, every port that can be bound is bound.
    pub fn restore(&self) -> Result<(), Gone> {
        self.api.registry.restore()
    }

    /// Answers requests until the event loop is gone.
    pub fn run(mut self) {
        loop {
            self.follow_settings();
            // The log has said so already.
            let _ = self.api.registry.mend();
            if let Some(request) = self.requests.wait(LOOK) {
                if let Err(Gone) = self.serve_batch(request) {
                    return;
                }
            }
        }
    }

    /// Answers `first` and whatever else has queued up; one save does for all their changes.
    fn serve_batch(&mut self, first: Request) -> Result<(), Gone> {
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            let before = self.api.registry.changes();
            let answer = self.answer(&request)?;
            answers.push((request, answer, self.api.registry.changes() > before));
            next = if answers.len() < BATCH { self.requests.take() } else { None };
        }
        let saved = self.api.registry.commit()?;
        let stop = answers.iter().find_map(|(_, answer, _)| answer.stop);
        for (request, answer, is_change) in answers {
            let status = match &saved {
                Err(error) if is_change => {
                    respond(request, Answer::failed(500, "Could not save", &error.to_string()), &self.writers)
                }
                _ => respond(request, answer, &self.writers),
            };
            self.api.count_answer(status);
        }
        match stop {
            Some(caller) => self.api.registry.relay.stop(format!("{caller} asked for it through the API")),
            None => Ok(()),
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Gone> {
        // Settings that came while this thread waited for a request are to be followed by that request already.
        self.follow_settings();
        let Some(peer) = request.caller() else {
            return Ok(Answer::failed(403, "Forbidden", "requests are taken on the API's port only"));
        };
        let body = match &request.body {
            Ok(body) => body,
            Err(error) => {
                return Ok(Answer::failed(400, "Bad Request", &format!("the body could not be read: {error}")));
            }
        };
        self.api.answer(&Call {
            method: request.method(),
            target: request.target(),
            content_type: request.header("Content-Type"),
            authorization: request.header("Authorization"),
            from_a_page: request.is_from_a_page(),
            peer,
            body,
        })
    }

    fn follow_settings(&mut self) {
        while let Ok(reload) = self.reloads.try_recv() {
            self.api.reloads.note(matches!(reload, Reload::TakenOver { .. }));
            if let Reload::TakenOver { config, token } = reload {
                self.api.access = Access::new(config.controllers, token);
                self.api.registry.ports.set_usable(config.ports);
            }
        }
    }
}

/// Sends the answer, and returns its status; whether the Controller is still there to read it is not our business.
fn respond(request: Request, answer: Answer, writers: &Arc<()>) -> u16 {
    let status = answer.status;
    if answer.body.len() <= ANSWER_AT_ONCE {
        request.respond(&answer);
        return status;
    }
    // A slow reader of a long answer costs its memory; so there are few of them.
    if Arc::strong_count(writers) > LONG_ANSWERS {
        let reason = format!("{LONG_ANSWERS} long answers are on their way already; try again soon");
        request.respond(&Answer::failed(503, "Service Unavailable", &reason).with_header("Retry-After", "1"));
        return 503;
    }
    // Written by this thread, it would make all Controllers wait for the slowest.
    let (writer, busy) = (thread::Builder::new().name("api-answer".to_owned()), Arc::clone(writers));
    let work = move || {
        request.respond(&answer);
        drop(busy);
    };
    if let Err(error) = writer.spawn(work) {
        if is_within_budget(Instant::now()) {
            error!("an API answer could not be sent: {error}");
        }
    }
    status
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
