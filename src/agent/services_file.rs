//! The settings file of an agent with several services: an object of defaults and a list of services.
//!
//! `{"connector":"relay.example.org","ca":"server-cert.pem","services":[{"name":"web","port":6000,`
//! `"passcodefile":"web.passcode","to":"127.0.0.1:8000"}]}`
//!
//! The keys of a service win over those beside the list. Other files are looked up beside this one.

use super::file::certificate;
use super::proxy::{self, Proxy};
use super::settings::{
    ABSENCE, CONNECTIONS, HEARTBEAT, Mode, Process, Protocol, Role, Security, Settings, SettingsError, certified_name,
    connections, passcode,
};
use super::target::Target;
use crate::config::SettingsFault;
use crate::config::json::{Place, fault};
use crate::config::value::{Endpoint, NonEmpty, Text, Whole};
use crate::layout::folder_of;
use crate::limits::SERVICES;
use crate::net::certificate::read_chain;
use crate::net::tcp::Local;
use crate::net::trust::Trust;
use crate::secret::Secret;
use crate::wire::proxy_protocol::Version;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What both a service and all of them may say, and what each key expects.
const SHARED: [(&str, &str); 12] = [
    ("connector", "a name or an IP address, as a string"),
    ("ca", "the name of a PEM file"),
    ("cert", "base64 of a certificate (DER), as a string"),
    ("servername", "a name or an IP address, as a string"),
    ("bind", "a local IP address or the name of a network interface, as a string"),
    ("proxy", proxy::EXPECTED),
    ("dev", "true or false"),
    ("connections", "a whole number, 1 to 65535"),
    ("heartbeat", "a whole number of milliseconds, 0 to 4294967295 (0: never)"),
    ("threshold", "a whole number of milliseconds, 0 to 4294967295 (0: never)"),
    ("protocol", "1 or 2"),
    ("proxyprotocol", "\"v1\" or \"v2\""),
];
/// What only a service may say.
const OWN: [(&str, &str); 7] = [
    ("name", "a string that is not empty"),
    ("mode", "\"public\" or \"private\""),
    ("port", "a port, 1 to 65535"),
    ("passcode", "a string that is not empty"),
    ("passcodefile", "the name of a file that holds the passcode and nothing else"),
    ("to", "HOST:PORT, like 127.0.0.1:8000"),
    ("listen", "HOST:PORT, like 127.0.0.1:2222"),
];
const LIST: (&str, &str) = ("services", "a list of objects, like [{\"name\": \"web\", \"port\": 6000, ...}]");

/// What only stands beside the list, because it concerns the whole process.
const PROCESS: [(&str, &str); 2] =
    [("metricslisten", "an IP address and a port, like \"127.0.0.1:9101\""), ("accesslog", "the name of a file")];

/// Whether `text` is meant to be such a file, and not Core Networking's.
pub fn is_one(text: &[u8]) -> bool {
    match serde_json::from_slice::<Map<String, Value>>(text) {
        Ok(keys) => keys.contains_key(LIST.0),
        Err(_) => text.windows(LIST.0.len() + 2).any(|bytes| bytes == b"\"services\""),
    }
}

/// What is in such a file.
pub struct Listed {
    pub process: Process,
    pub services: Vec<Settings>,
    /// The files that it names and the agent reads.
    pub files: Vec<PathBuf>,
}

/// What is in `file`, whose content is `text`.
pub fn parse(file: &Path, text: &[u8]) -> Result<Listed, SettingsError> {
    let invalid = |fault| SettingsError::Invalid { file: file.to_owned(), fault };
    let (mut process, defaults, services) = read(text).map_err(invalid)?;
    let wrong = |problem| SettingsError::File { file: file.to_owned(), problem };
    process.access_log = process.access_log.map(|log| folder_of(file).join(log));
    let named = services.iter().flat_map(Own::files).chain(defaults.file());
    let files = named.map(|name| folder_of(file).join(name)).collect();
    let mut authorities = HashMap::new();
    if services.is_empty() {
        return Err(wrong(format!("key {:?}: the list is empty; expected one service at least", LIST.0)));
    }
    let complete = |service: Own| {
        let name = service.name.clone();
        let completed = service.complete(&defaults, folder_of(file), &mut authorities);
        completed.map_err(|problem| wrong(format!("service {:?}: {problem}", name.unwrap_or_default())))
    };
    let services = services.into_iter().map(complete).collect::<Result<Vec<_>, _>>()?;
    match same_listener(&services) {
        None => Ok(Listed { process, services, files }),
        Some(problem) => Err(wrong(problem)),
    }
}

/// Two services cannot listen at one address.
fn same_listener(services: &[Settings]) -> Option<String> {
    let mut taken: HashMap<&Target, &Settings> = HashMap::new();
    services.iter().filter(|service| service.role == Role::Listen).find_map(|service| {
        let other = taken.insert(&service.target, service)?;
        let name = |service: &Settings| service.name.clone().unwrap_or_default();
        let (name, other) = (name(service), name(other));
        Some(format!("service {name:?}: key \"listen\": the service {other:?} listens at {} already", service.target))
    })
}

/// What is wrong in `text` itself; no other file is opened.
#[cfg(any(test, fuzzing))]
pub(crate) fn problem(text: &[u8]) -> Option<SettingsFault> {
    read(text).err()
}

/// Keys that stand beside the list, or in a service. `None`: not there.
#[derive(Default)]
struct Shared {
    connector: Option<String>,
    trust: Option<Source>,
    server_name: Option<String>,
    bind: Option<Local>,
    proxy: Option<Proxy>,
    dev: Option<bool>,
    connections: Option<u16>,
    heartbeat: Option<u32>,
    threshold: Option<u32>,
    protocol: Option<Protocol>,
    proxy_protocol: Option<Version>,
}

impl Shared {
    /// The file that these keys name.
    fn file(&self) -> Option<&PathBuf> {
        match &self.trust {
            Some(Source::File(file)) => Some(file),
            _ => None,
        }
    }
}

/// Where it stands whom to trust.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Here(Arc<Trust>),
}

/// A service as it stands there.
#[derive(Default)]
struct Own {
    shared: Shared,
    name: Option<String>,
    mode: Option<Mode>,
    port: Option<u16>,
    passcode: Option<Secret>,
    passcode_file: Option<PathBuf>,
    to: Option<Target>,
    listen: Option<Target>,
}

impl Own {
    /// The files that a service names.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.passcode_file.iter().chain(self.shared.file())
    }

    /// What only shows once all keys of the service are read: the key to blame, and why.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let Self { mode, to, listen, passcode, passcode_file, .. } = self;
        if self.name.is_none() {
            return Err(("name", "missing: the log and the status call the service by it"));
        }
        if self.port.is_none() {
            return Err(("port", "missing: the mapping's port on the Connector"));
        }
        match (to, listen) {
            (Some(_), Some(_)) => {
                return Err(("listen", "one end of a tunnel listens, the other has \"to\"; not both"));
            }
            (None, None) => return Err(("to", "missing: the local service, or \"listen\" at one end of a tunnel")),
            (None, Some(_)) if *mode == Some(Mode::Public) => {
                return Err(("listen", "only one end of a private pipe listens; \"mode\" is \"public\""));
            }
            _ => {}
        }
        match (passcode, passcode_file) {
            (Some(_), Some(_)) => Err(("passcodefile", "there is a passcode already; expected one of the two keys")),
            (None, None) => Err(("passcodefile", "missing: the file that holds the passcode; or give \"passcode\"")),
            _ => Ok(()),
        }
    }

    /// Fills in what all services have in common, and reads the files that are named.
    fn complete(
        self,
        all: &Shared,
        folder: &Path,
        authorities: &mut HashMap<PathBuf, Arc<Trust>>,
    ) -> Result<Settings, String> {
        let missing = |key: &str| format!("key {key:?}: missing, here and beside \"services\"");
        let in_file = |key: &'static str| move |error: SettingsError| format!("key {key:?}: {error}");
        let own = self.shared;
        let host = own.connector.or(all.connector.clone()).ok_or_else(|| missing("connector"))?;
        let security = if own.dev.or(all.dev).unwrap_or_default() {
            Security::Dev
        } else {
            let server_name = own.server_name.or(all.server_name.clone());
            let key = if server_name.is_some() { "servername" } else { "connector" };
            let wrong = |problem| format!("key {key:?}: {problem}");
            let name = certified_name(server_name.as_ref().unwrap_or(&host)).map_err(wrong)?;
            let trust = match own.trust.or(all.trust.clone()) {
                None => Arc::new(Trust::System),
                Some(Source::Here(trust)) => trust,
                Some(Source::File(file)) => trust_of(folder.join(file), authorities).map_err(in_file("ca"))?,
            };
            Security::Tls { trust, name }
        };
        let passcode = match (self.passcode, self.passcode_file) {
            (Some(passcode), _) => passcode,
            (None, file) => {
                let file = file.ok_or_else(|| missing("passcodefile"))?;
                passcode(&folder.join(file)).map_err(in_file("passcodefile"))?
            }
        };
        let (role, target) = match (self.listen, self.to) {
            (Some(target), _) => (Role::Listen, target),
            (None, to) => (Role::Expose, to.ok_or_else(|| missing("to"))?),
        };
        let every = |time: u32| (time > 0).then(|| Duration::from_millis(time.into()));
        let kept = own.connections.or(all.connections);
        let protocol = own.protocol.or(all.protocol).unwrap_or(Protocol::Two);
        Ok(Settings {
            name: self.name.map(Arc::from),
            connector: Target { host, port: self.port.ok_or_else(|| missing("port"))? },
            connections: kept.unwrap_or(connections(protocol)),
            connections_v1: kept.unwrap_or(CONNECTIONS),
            passcode,
            role,
            may_tunnel: self.mode != Some(Mode::Public),
            target,
            heartbeat: every(own.heartbeat.or(all.heartbeat).unwrap_or(HEARTBEAT)),
            absence: every(own.threshold.or(all.threshold).unwrap_or(ABSENCE)),
            security,
            bind: own.bind.or(all.bind.clone()),
            proxy: own.proxy.or(all.proxy.clone()).map(Box::new),
            proxy_protocol: own.proxy_protocol.or(all.proxy_protocol),
            protocol,
        })
    }
}

/// Each file is read once, and kept once.
fn trust_of(file: PathBuf, authorities: &mut HashMap<PathBuf, Arc<Trust>>) -> Result<Arc<Trust>, SettingsError> {
    if let Some(trust) = authorities.get(&file) {
        return Ok(Arc::clone(trust));
    }
    let trust = Arc::new(Trust::Certificates(read_chain(&file)?));
    authorities.insert(file, Arc::clone(&trust));
    Ok(trust)
}

/// Where the reader is, and in which service.
#[derive(Default)]
struct Reading {
    place: Cell<Place>,
    service: RefCell<Option<String>>,
    names: RefCell<HashSet<String>>,
}

/// Reads the whole file. No other file is opened.
fn read(text: &[u8]) -> Result<Content, SettingsFault> {
    let reading = Reading::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = json.deserialize_map(File(&reading)).and_then(|read| json.end().map(|()| read));
    read.map_err(|error| {
        let mut fault = fault(text, &error, reading.place.take());
        if let Some(service) = reading.service.take() {
            fault.problem = format!("{service}: {}", fault.problem);
        }
        fault
    })
}

/// What the file says: of the process, of all services, and of each.
type Content = (Process, Shared, Vec<Own>);

/// The object that the file is.
struct File<'a>(&'a Reading);
/// The list of services.
struct List<'a>(&'a Reading);
/// One of them.
struct One<'a>(&'a Reading);

impl Reading {
    /// The next key, which is none of `seen`, and is noted there.
    fn key<'de, A: MapAccess<'de>>(
        &self,
        map: &mut A,
        seen: &mut Vec<String>,
        known: &[&[(&'static str, &'static str)]],
    ) -> Result<Option<String>, A::Error> {
        self.place.set(Place::Object);
        let Some(key) = map.next_key::<String>()? else { return Ok(None) };
        self.place.set(Place::Key(key.clone()));
        if seen.contains(&key) {
            return Err(A::Error::custom("given twice"));
        }
        let Some((_, expected)) = known.iter().copied().flatten().find(|(name, _)| *name == key) else {
            let names: Vec<&str> = known.iter().copied().flatten().map(|(name, _)| *name).collect();
            return Err(A::Error::custom(format!("unknown key; expected one of {}", names.join(", "))));
        };
        self.place.set(Place::Value(key.clone(), expected));
        seen.push(key.clone());
        Ok(Some(key))
    }

    fn blame<E: Error>(&self, (key, problem): (&'static str, &'static str)) -> E {
        self.place.set(Place::Key(key.to_owned()));
        E::custom(problem)
    }
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of settings, like {\"connector\": \"relay.example.org\", \"services\": []}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut process, mut shared) = (Process::default(), Shared::default());
        let (mut services, mut seen) = (Vec::new(), Vec::new());
        while let Some(key) = self.0.key(&mut map, &mut seen, &[&SHARED, &PROCESS, &[LIST]])? {
            match key.as_str() {
                "services" => services = map.next_value_seed(List(self.0))?,
                "metricslisten" => process.metrics_listen = Some(map.next_value::<Text<Endpoint>>()?.0.0),
                "accesslog" => process.access_log = Some(map.next_value::<Text<NonEmpty>>()?.0.0.into()),
                _ => shared.read(&key, &mut map)?,
            }
        }
        shared.check(&seen).map_err(|wrong| self.0.blame(wrong))?;
        Ok((process, shared, services))
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Own>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Own>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Own>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Own>, A::Error> {
        let mut services = Vec::new();
        loop {
            self.0.place.set(Place::Value(LIST.0.to_owned(), LIST.1));
            if services.len() == SERVICES {
                return match list.next_element::<IgnoredAny>()? {
                    None => Ok(services),
                    Some(_) => Err(A::Error::custom(format!("more than {SERVICES} services"))),
                };
            }
            *self.0.service.borrow_mut() = Some(format!("service {}", services.len() + 1));
            let next = list.next_element_seed(One(self.0))?;
            self.0.service.take();
            let Some(service) = next else { return Ok(services) };
            services.push(service);
        }
    }
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Own;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Own, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Own;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Own, A::Error> {
        let (mut service, mut seen) = (Own::default(), Vec::new());
        while let Some(key) = self.0.key(&mut map, &mut seen, &[&OWN, &SHARED])? {
            match key.as_str() {
                "name" => {
                    let name = map.next_value::<Text<NonEmpty>>()?.0.0;
                    *self.0.service.borrow_mut() = Some(format!("service {name:?}"));
                    if !self.0.names.borrow_mut().insert(name.clone()) {
                        return Err(self.0.blame(("name", "another service has this name")));
                    }
                    service.name = Some(name);
                }
                "mode" => service.mode = Some(map.next_value::<Text<Mode>>()?.0),
                "port" => service.port = Some(map.next_value::<Whole<u16>>()?.0),
                "passcode" => service.passcode = Some(Secret::new(map.next_value::<Text<NonEmpty>>()?.0.0)),
                "passcodefile" => service.passcode_file = Some(map.next_value::<Text<NonEmpty>>()?.0.0.into()),
                "to" => service.to = Some(map.next_value::<Text<Target>>()?.0),
                "listen" => service.listen = Some(map.next_value::<Text<Target>>()?.0),
                _ => service.shared.read(&key, &mut map)?,
            }
        }
        service.check().and_then(|()| service.shared.check(&seen)).map_err(|wrong| self.0.blame(wrong))?;
        Ok(service)
    }
}

impl Shared {
    /// Reads the value of `key`, which is one of [`SHARED`].
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "connector" => self.connector = Some(map.next_value::<Text<NonEmpty>>()?.0.0),
            "ca" => self.trust = Some(Source::File(map.next_value::<Text<NonEmpty>>()?.0.0.into())),
            "cert" => {
                let text = map.next_value::<Text<NonEmpty>>()?.0.0;
                let trust = certificate(&text).ok_or_else(|| A::Error::custom("no certificate"))?;
                self.trust = Some(Source::Here(Arc::new(trust)));
            }
            "servername" => self.server_name = Some(map.next_value::<Text<NonEmpty>>()?.0.0),
            "bind" => self.bind = Some(map.next_value::<Text<Local>>()?.0),
            "proxy" => self.proxy = Some(map.next_value::<Text<Proxy>>()?.0),
            "dev" => self.dev = Some(map.next_value()?),
            "connections" => self.connections = Some(map.next_value::<Whole<u16>>()?.0),
            "proxyprotocol" => self.proxy_protocol = Some(map.next_value::<Text<Version>>()?.0),
            "protocol" => self.protocol = Some(map.next_value::<Whole<Protocol>>()?.0),
            "heartbeat" => self.heartbeat = Some(map.next_value()?),
            _ => self.threshold = Some(map.next_value()?),
        }
        Ok(())
    }

    fn check(&self, seen: &[String]) -> Result<(), (&'static str, &'static str)> {
        let has = |key: &str| seen.iter().any(|seen| seen == key);
        match has("ca") && has("cert") {
            true => Err(("ca", "there is a \"cert\" already; expected one of the two keys")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    const LEAST: &str = r#""name":"a","port":1,"passcode":"p","to":"h:1""#;

    fn services(text: &str) -> Result<Vec<Settings>, String> {
        let folder = Folder::new();
        std::fs::write(folder.0.join("secret"), "from file\n").unwrap();
        parse(&folder.0.join("agent.conf"), text.as_bytes())
            .map(|listed| listed.services)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_wins_over_what_stands_beside_the_list() {
        let text = r#"{"services": [
            {"name": "web", "mode": "public", "port": 6000, "passcodefile": "secret", "to": "web:80", "connections": 4},
            {"name": "in", "mode": "private", "port": 1, "passcode": "p", "listen": "[::1]:2222", "dev": false,
             "connector": "b"}],
            "connector": "a", "dev": true, "connections": 2, "heartbeat": 0, "threshold": 1000}"#;
        let services = services(text).unwrap();
        let [web, inner] = &services[..] else { panic!("{services:?}") };
        assert_eq!((web.name.as_deref(), web.connections), (Some("web"), 4));
        assert_eq!((web.connector.to_string(), web.target.to_string()), ("a:6000".into(), "web:80".into()));
        assert_eq!((web.passcode.expose(), web.role), ("from file", Role::Expose));
        assert_eq!((web.heartbeat, web.absence), (None, Some(Duration::from_secs(1))));
        assert_eq!(web.security, Security::Dev);
        assert_eq!((inner.connector.to_string(), inner.connections), ("b:1".into(), 2));
        assert_eq!((inner.role, inner.target.to_string()), (Role::Listen, "[::1]:2222".into()));
        assert!(matches!(inner.security, Security::Tls { .. }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_service_and_key() {
        let listed = |service: &str| format!("{{\"connector\":\"c\",\"dev\":true,\n\"services\":[{{{service}}}]}}");
        for (text, words) in [
            (
                listed(&LEAST.replace("\"port\":1", "\"port\":0")),
                &["line 2", "service \"a\"", "\"port\"", "1 to 65535"][..],
            ),
            (listed(&LEAST.replace("h:1", "h")), &["service \"a\"", "key \"to\"", "HOST:PORT"]),
            (listed(&LEAST.replace("\"port\":1,", "")), &["service \"a\"", "\"port\": missing"]),
            (listed(r#""port":1"#), &["service 1", "\"name\": missing"]),
            (listed(&format!("{LEAST}}},{{{LEAST}")), &["service \"a\"", "another service"]),
            (listed(&format!("{LEAST},\"protocol\":3")), &["service \"a\"", "\"protocol\"", "1 or 2"]),
            (listed(&format!("{LEAST},\"proxyprotocol\":2")), &["\"proxyprotocol\"", "\"v1\" or \"v2\""]),
            (listed(&format!("{LEAST},\"hots\":1")), &["service \"a\"", "\"hots\": unknown", "passcodefile"]),
            (listed(&format!("{LEAST},\"port\":1")), &["service \"a\"", "\"port\": given twice"]),
            (listed(&format!("{LEAST},\"listen\":\"h:1\"")), &["\"listen\"", "not both"]),
            (listed(&format!("{LEAST},\"ca\":\"x\",\"cert\":\"x\"")), &["\"cert\"", "no certificate", "base64"]),
            (listed(&LEAST.replace("\"passcode\":\"p\"", "\"passcodefile\":\"none\"")), &["none: cannot be read"]),
            (format!("{{\"services\":[{{{LEAST}}}]}}"), &["service \"a\"", "\"connector\": missing"]),
            (r#"{"services":{}}"#.into(), &["\"services\"", "expected a list"]),
            (r#"{"services":[1]}"#.into(), &["service 1", "expected a list of objects"]),
            ("{\"services\":[],\n}".into(), &["agent.conf, line 2", "not valid JSON"]),
            (r#"{"services":[]}"#.into(), &["agent.conf: ", "\"services\"", "one service at least"]),
            (
                listed(
                    r#""name":"a","port":1,"passcode":"p","listen":"127.0.0.1:7"},
                    {"name":"b","port":1,"passcode":"p","listen":"127.0.0.1:7""#,
                ),
                &["service \"b\"", "\"listen\"", "\"a\"", "127.0.0.1:7"],
            ),
            (
                listed(r#""name":"a","port":1,"passcodefile":"nothing","to":"h:1""#),
                &["agent.conf", "service \"a\"", "\"passcodefile\"", "nothing: cannot be read"],
            ),
        ] {
            let error = services(&text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in {error:?}");
            }
        }
    }

    #[test]
    fn a_wrong_passcode_is_not_shown() {
        let text = r#"{"connector":"c","services":[{"name":"a","passcode":12345}]}"#;
        let error = services(text).unwrap_err();
        assert!(error.contains("\"passcode\"") && !error.contains("12345"), "{error}");
    }

    #[test]
    fn the_kind_of_file_shows_in_its_keys() {
        assert!(is_one(br#"{"services":[]}"#) && is_one(b"{\"services\":["));
        assert!(!is_one(br#"{"host":"services","passcode":"\"services\""}"#) && !is_one(b"{"));
    }
}
