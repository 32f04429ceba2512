//! The endpoints (docs/protocol.md, "Control API"): one function each. Knows nothing of HTTP's framing.

use super::access::Access;
use super::answer::{Answer, Stopped};
use super::commandline;
use super::direct::{Caller, Callers};
use super::form::Form;
use super::metrics;
use super::registry::Registry;
use super::reloads::Reloads;
use super::status;
use crate::clock::timestamp;
use crate::limits::{DIRECT_CALLER, HEALTHY};
use crate::mapping::{FieldError, Kind, Request};
use crate::prometheus::process::Process;
use crate::relay::api::caller::ApiCaller;
use crate::relay::command::Gone;
use std::collections::BTreeMap;
use std::time::Instant;

/// One request, as far as an endpoint looks at it.
pub(super) struct Call<'a> {
    pub method: &'a str,
    /// With its query string, if it has one.
    pub target: &'a str,
    pub content_type: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// A browser sends it on behalf of a web page.
    pub from_a_page: bool,
    pub peer: ApiCaller,
    pub body: &'a [u8],
}

/// What the endpoints work on.
pub(super) struct Api {
    pub registry: Registry,
    pub access: Access,
    pub callers: Callers,
    /// Port of the peer-to-peer broker.
    pub broker: Option<u16>,
    /// Dev mode.
    pub dev: bool,
    pub started: Instant,
    pub reloads: Reloads,
    /// How many requests got an answer of which status. Statuses are ours alone, and few.
    pub answers: BTreeMap<u16, u64>,
}

type Endpoint = fn(&mut Api, &Call) -> Result<Answer, Stopped>;

/// What a caller of an endpoint does, and so who may call it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Asks whether the daemon is well: everybody may.
    Health,
    /// Reads what is no secret: whoever comes to the port of `metricslisten` may.
    Reading,
    Calling,
    /// Changes the mappings.
    Changing,
}

/// Path, method, endpoint, and what it is for. For monitoring GET is expected.
const ENDPOINTS: [(&str, &str, Endpoint, Use); 11] = [
    ("/api/v2/mapping/add", "POST", Api::mapping_add, Use::Changing),
    ("/api/v2/mapping/remove", "POST", Api::mapping_remove, Use::Changing),
    ("/api/v2/mapping/list", "POST", Api::mapping_list, Use::Calling),
    ("/api/v2/status", "POST", Api::status, Use::Reading),
    ("/api/v2/commandline", "POST", Api::commandline, Use::Calling),
    ("/api/v2/direct/add", "POST", Api::direct_add, Use::Changing),
    ("/api/v2/direct", "POST", Api::direct, Use::Calling),
    ("/api/v2/direct/remove", "POST", Api::direct_remove, Use::Changing),
    ("/metrics", "GET", Api::metrics, Use::Reading),
    ("/status", "GET", Api::status_of_all, Use::Reading),
    ("/healthz", "GET", Api::health, Use::Health),
];

/// Why a request at the port of `metricslisten` is refused.
const ONLY_READING: &str = "only /metrics, /status, /healthz and /api/v2/status are served at this port";

/// Why a request is refused that a browser sends on behalf of a web page: it comes from wherever the person at the
/// browser sits, and may do what that person may.
const FROM_A_PAGE: &str = "requests of web pages (an Origin header, or a Sec-Fetch-Site other than none) are not taken";

/// The content type of every POST.
const FORM: &str = "application/x-www-form-urlencoded";

impl Api {
    /// Answers one request. An answer to a change holds only once the registry has been committed.
    pub fn answer(&mut self, call: &Call) -> Result<Answer, Gone> {
        match self.route(call) {
            Ok(answer) | Err(Stopped::Answered(answer)) => Ok(answer),
            Err(Stopped::Gone) => Err(Gone),
        }
    }

    /// An answer has been sent.
    pub fn count_answer(&mut self, status: u16) {
        *self.answers.entry(status).or_default() += 1;
    }

    fn route(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let now = Instant::now();
        if call.from_a_page {
            return Ok(self.access.refuse(&call.peer, FROM_A_PAGE, now));
        }
        let found = ENDPOINTS.iter().find(|(path, ..)| *path == call.target);
        match found.map(|(.., what)| what) {
            Some(Use::Health) => {}
            Some(Use::Reading) if call.peer.only_reads => {}
            _ if call.peer.only_reads => return Ok(Answer::failed(403, "Forbidden", ONLY_READING)),
            _ => self.access.check(&call.peer, call.authorization, now)?,
        }
        let Some((_, method, endpoint, what)) = found else {
            return Ok(Answer::failed(404, "Not Found", "there is no such path"));
        };
        if call.method != *method {
            let refusal = Answer::failed(405, "Method Not Allowed", &format!("expected {method}"));
            return Ok(refusal.with_header("Allow", method));
        }
        if *method == "POST" && !call.content_type.is_some_and(is_form) {
            return Ok(Answer::failed(400, "Incorrect content type!", &format!("expected Content-Type: {FORM}")));
        }
        if *what == Use::Changing && self.registry.relay.is_stopping() {
            let refusal = Answer::failed(503, "Service Unavailable", "the daemon is stopping; try again soon");
            return Ok(refusal.with_header("Retry-After", "1"));
        }
        endpoint(self, call)
    }

    fn mapping_add(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let request = Request::from_json(&Form(call.body).mapping()?)?;
        if let Some((key, why)) = request.options.not_in_dev_mode().filter(|_| self.dev) {
            return Err(FieldError::new(key, "\"tls\"", &format!("\"plain\" or no such key: {why}")).into());
        }
        let mapping = self.registry.add(&request, call.peer.ip)?;
        let [port1, port2] = mapping.ports().unwrap_or_default();
        let [passcode1, passcode2] = mapping.passcodes();
        Ok(Answer::ok([
            ("status", "ok".into()),
            ("id", mapping.id.as_str().into()),
            ("port1", port1.into()),
            ("port2", port2.into()),
            ("passcode1", passcode1.into()),
            ("passcode2", passcode2.into()),
        ]))
    }

    fn mapping_remove(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let id = Form(call.body).require("mappingid", "a mapping's id or name")?;
        Ok(self.remove(&id, &call.peer))
    }

    fn mapping_list(&mut self, _call: &Call) -> Result<Answer, Stopped> {
        Ok(status::list(&self.registry)?)
    }

    /// Agents' documents call the field `id`, the Controller's `mappingid`.
    fn direct_remove(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let form = Form(call.body);
        let id = form.get("id").map_or_else(|| form.require("mappingid", "the id of a direct entry"), Ok);
        Ok(self.remove(&id?, &call.peer))
    }

    fn remove(&mut self, id_or_name: &str, peer: &ApiCaller) -> Answer {
        let Some(id) = self.registry.remove(id_or_name, peer.ip) else {
            return Answer::failed(404, "Not Found", "invalid id");
        };
        self.callers.forget(&id);
        Answer::ok([("status", "ok".into()), ("id", id.into())])
    }

    fn status(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let id = Form(call.body).require("mappingid", "\"all\", or a mapping's id or name")?;
        if id == "all" {
            return self.status_of_all(call);
        }
        let Some(mapping) = self.registry.find(&id) else {
            let reason = format!("there is no mapping of the id or name {id:?}");
            return Ok(Answer::failed(404, "Not Found", &reason));
        };
        Ok(Answer::of(&status::of_one(&self.registry, mapping)?))
    }

    fn status_of_all(&mut self, _call: &Call) -> Result<Answer, Stopped> {
        Ok(Answer::of(&status::of_all(&self.registry, self.started.elapsed())?))
    }

    /// Both threads have a part in the answer: that it comes at all says that this one is well.
    fn health(&mut self, _call: &Call) -> Result<Answer, Stopped> {
        let relay = &self.registry.relay;
        let reason = match () {
            () if relay.is_stopping() => "the daemon is stopping".to_owned(),
            () if relay.turns_within(HEALTHY) => return Ok(Answer::ok([("status", "ok".into())])),
            () => format!("the event loop has not turned for {} s", HEALTHY.as_secs()),
        };
        Ok(Answer::failed(503, "Service Unavailable", &reason))
    }

    fn metrics(&mut self, _call: &Call) -> Result<Answer, Stopped> {
        let registry = &self.registry;
        let snapshot = metrics::Snapshot {
            mappings: registry.mappings().len(),
            available_ports: registry.ports.available(),
            started: timestamp().saturating_sub(self.started.elapsed().as_millis() as u64),
            totals: registry.relay.totals()?,
            pipes: registry.relay.status_of_all()?,
            infos: registry.mappings().values().map(metrics::Info::of).collect(),
            answers: self.answers.clone(),
            reloads: self.reloads,
            process: Process::read(),
        };
        Ok(Answer::metrics(metrics::text(&snapshot)))
    }

    fn commandline(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let form = Form(call.body);
        let command = form.require("command", "status, version, help or stop")?;
        if let Some(name) = form.get("params").as_deref().and_then(commandline::repeated_name) {
            return Err(FieldError::new("params", format!("naming {name:?} twice"), "each name once").into());
        }
        Ok(match &*command {
            "status" if self.registry.relay.is_stopping() => say("Connector is stopping."),
            "status" => say("Connector is up and running."),
            "version" | "-v" | "--version" => say(commandline::VERSION),
            "stop" if !call.peer.is_here => {
                self.access.refuse(&call.peer, "stop is taken from this machine only", Instant::now())
            }
            "stop" => Answer { stop: Some(call.peer.ip), ..say("Connector stopped... :)") },
            _ => say(commandline::HELP),
        })
    }

    fn direct_add(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let Some(port) = self.broker else {
            let reason = "the settings name no broker port (key \"broker\")";
            return Ok(Answer::failed(409, "No broker", reason));
        };
        let mapping = self.registry.add_direct(call.peer.ip)?;
        let [passkey, _] = mapping.passcodes();
        let id = mapping.id.as_str().into();
        Ok(Answer::ok([("status", "ok".into()), ("id", id), ("passkey", passkey.into()), ("port", port.into())]))
    }

    /// Lets a peer of a direct entry wait, or tells it of the one who waits.
    fn direct(&mut self, call: &Call) -> Result<Answer, Stopped> {
        let form = Form(call.body);
        let id = form.require("id", "the id of a direct entry")?;
        let passkey = form.require("passkey", "the passkey of the direct entry")?;
        let caller = caller(&form, &call.peer)?;
        let is_valid = |kind: &Kind| matches!(kind, Kind::Direct { passkey: key } if key.matches(passkey.as_bytes()));
        if !self.registry.mappings().get(&*id).is_some_and(|mapping| is_valid(&mapping.kind)) {
            return Ok(Answer::failed(404, "Connection ID is not valid!", "no direct entry has this id and passkey"));
        }
        Ok(match self.callers.meet(&id, caller, Instant::now()) {
            None => Answer::ok([("status", "wait".into()), ("id", (*id).into())]),
            Some(first) => Answer::ok([
                ("status", "ok".into()),
                ("id", (*id).into()),
                ("ip", first.ip.into()),
                ("remoteip", first.remote_ip.to_string().into()),
                ("port", first.port.into()),
                ("certificate", first.certificate.into()),
            ]),
        })
    }
}

/// What a caller of `direct` says of itself.
fn caller(form: &Form, peer: &ApiCaller) -> Result<Caller, FieldError> {
    let expected = "a port, 1 to 65535";
    let digits = form.require("port", expected)?;
    let port = match digits.parse() {
        Ok(port) if port > 0 => port,
        _ => return Err(FieldError::new("port", format!("{digits:?}"), expected)),
    };
    let ip = form.require("ip", "the caller's own address")?.into_owned();
    let certificate = form.require("certificate", "the caller's certificate")?.into_owned();
    if ip.len() + certificate.len() > DIRECT_CALLER {
        let expected = format!("at most {DIRECT_CALLER} bytes with ip");
        return Err(FieldError::new("certificate", format!("{} bytes long", certificate.len()), &expected));
    }
    Ok(Caller { ip, remote_ip: peer.ip, port, certificate })
}

fn say(response: &str) -> Answer {
    Answer::ok([("response", response.into())])
}

/// Whether this is the content type that is expected, whatever its parameters.
fn is_form(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
}

#[cfg(test)]
mod tests;
