//! The keys of the settings file as they stand there, each checked by itself and against the others.

use super::SettingsFault;
use super::json::{Place, fault};
use super::value::{self, NonEmpty, Text, Whole};
use crate::cidr::Cidr;
use crate::ports::{PortRange, PortSet};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Every key, and what it expects.
const KEYS: [(&str, &str); 16] = [
    ("ports", "a list of strings, each one port or FROM-TO, like [\"6000-6001\", \"7000\"]"),
    ("exclude", "a list of strings, each one port or FROM-TO, like [\"6000-6001\", \"7000\"]"),
    ("broker", "a port, 1 to 65535"),
    ("address", "an IP address or a host name, as a string"),
    ("dev", "true or false"),
    ("listen", "a local IP address, as a string"),
    ("apiport", "a port, 1 to 65535"),
    ("controllers", "a list of IP addresses or ranges, like [\"10.0.0.0/8\", \"::1\"]"),
    ("controllerca", "the name of a PEM file"),
    ("apitoken", "the name of a file that holds the token"),
    ("trustproxy", "a list of IP addresses or ranges, like [\"10.0.0.0/8\", \"::1\"]"),
    ("metricslisten", "an IP address and a port, like \"127.0.0.1:9100\""),
    ("connections", "a whole number from 1"),
    ("buffers", "a whole number from 2"),
    ("logfile", "the name of a file"),
    ("accesslog", "the name of a file"),
];

/// What the file says; `None` = the key is absent.
#[derive(Default)]
pub(super) struct Keys {
    ports: Vec<PortRange>,
    exclude: Vec<PortRange>,
    pub broker: Option<u16>,
    pub address: Option<String>,
    pub dev: Option<bool>,
    pub listen: Option<IpAddr>,
    apiport: Option<u16>,
    pub controllers: Option<Vec<Cidr>>,
    pub controllerca: Option<PathBuf>,
    pub apitoken: Option<PathBuf>,
    pub trustproxy: Vec<Cidr>,
    pub metricslisten: Option<SocketAddr>,
    pub connections: Option<usize>,
    pub buffers: Option<usize>,
    pub logfile: Option<PathBuf>,
    pub accesslog: Option<PathBuf>,
}

impl Keys {
    /// The API's port: the original's defaults if the file does not say.
    pub fn api_port(&self) -> u16 {
        self.apiport.unwrap_or(if self.dev == Some(true) { 8080 } else { 443 })
    }

    /// `ports` minus `exclude`, minus the ports that the daemon itself needs.
    pub fn usable_ports(&self) -> PortSet {
        let mut usable = PortSet::usable(&self.ports, &self.exclude);
        usable.remove(self.api_port());
        if let Some(broker) = self.broker {
            usable.remove(broker);
        }
        if let Some(address) = self.metricslisten {
            usable.remove(address.port());
        }
        usable
    }
}

/// Reads the whole file.
pub(super) fn parse(text: &[u8]) -> Result<Keys, SettingsFault> {
    let place = Cell::new(Place::Object);
    let mut json = serde_json::Deserializer::from_slice(text);
    let keys = json.deserialize_map(Reader { place: &place }).and_then(|keys| json.end().map(|()| keys));
    keys.map_err(|error| fault(text, &error, place.into_inner()))
}

/// Walks the object and says in `place` where it is.
struct Reader<'a> {
    place: &'a Cell<Place>,
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of settings, like {\"ports\": [\"6000-6001\"], \"dev\": true}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let mut keys = Keys::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            self.place.set(Place::Key(key.clone()));
            if seen.contains(&key) {
                return Err(A::Error::custom("given twice"));
            }
            if let Some((_, expected)) = KEYS.iter().find(|(name, _)| *name == key) {
                self.place.set(Place::Value(key.clone(), expected));
            }
            keys.read(&key, &mut map)?;
            self.place.set(Place::Object);
            seen.push(key);
        }
        keys.check(&seen).map_err(|(key, problem)| {
            self.place.set(Place::Key(key.to_owned()));
            A::Error::custom(problem)
        })?;
        Ok(keys)
    }
}

impl Keys {
    /// Reads the value of `key`.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "ports" => self.ports = list(map)?,
            "exclude" => self.exclude = list(map)?,
            "broker" => self.broker = Some(port(map)?),
            "address" => self.address = Some(name(map)?),
            "dev" => self.dev = Some(map.next_value()?),
            "listen" => self.listen = Some(map.next_value::<Text<value::Address>>()?.0.0),
            "apiport" => self.apiport = Some(port(map)?),
            "controllers" => self.controllers = Some(list(map)?),
            "controllerca" => self.controllerca = Some(name(map)?.into()),
            "apitoken" => self.apitoken = Some(name(map)?.into()),
            "trustproxy" => self.trustproxy = list(map)?,
            "metricslisten" => self.metricslisten = Some(map.next_value::<Text<value::Endpoint>>()?.0.0),
            "connections" => self.connections = Some(count(map)?),
            "buffers" => self.buffers = Some(count(map)?),
            "logfile" => self.logfile = Some(name(map)?.into()),
            "accesslog" => self.accesslog = Some(name(map)?.into()),
            _ => {
                let names = KEYS.map(|(name, _)| name).join(", ");
                return Err(A::Error::custom(format!("unknown key; expected one of {names}")));
            }
        }
        Ok(())
    }

    /// What only shows once all keys are read: the key to blame, and why.
    fn check(&self, seen: &[String]) -> Result<(), (&'static str, &'static str)> {
        if !seen.iter().any(|key| key == "ports") {
            return Err(("ports", "missing: it lists the ports that mappings may have, like [\"30000-49999\"]"));
        }
        if self.broker == Some(self.api_port()) {
            return Err(("broker", "the same port as the control API's; expected one of its own"));
        }
        if let Some(port) = self.metricslisten.map(|address| address.port()) {
            if port == self.api_port() || Some(port) == self.broker {
                return Err(("metricslisten", "the port of the control API or the broker; expected one of its own"));
            }
        }
        if self.dev == Some(true) && self.controllerca.is_some() {
            return Err((
                "controllerca",
                "there are no client certificates with \"dev\": true; expected no more than one of the two keys",
            ));
        }
        if self.buffers == Some(1) {
            return Err(("buffers", "1; expected a whole number from 2: the two sides of a session need one each"));
        }
        if self.usable_ports().is_empty() {
            return Err(("ports", "no usable port is left after exclude, broker and apiport; expected at least one"));
        }
        Ok(())
    }
}

fn list<'de, T, A>(map: &mut A) -> Result<Vec<T>, A::Error>
where
    T: std::str::FromStr<Err = String>,
    A: MapAccess<'de>,
{
    Ok(map.next_value::<Vec<Text<T>>>()?.into_iter().map(|text| text.0).collect())
}

fn port<'de, A: MapAccess<'de>>(map: &mut A) -> Result<u16, A::Error> {
    Ok(map.next_value::<Whole<u16>>()?.0)
}

fn count<'de, A: MapAccess<'de>>(map: &mut A) -> Result<usize, A::Error> {
    Ok(map.next_value::<Whole<usize>>()?.0)
}

fn name<'de, A: MapAccess<'de>>(map: &mut A) -> Result<String, A::Error> {
    Ok(map.next_value::<Text<NonEmpty>>()?.0.0)
}
