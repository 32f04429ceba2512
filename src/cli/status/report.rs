//! What `status` has to say of a running daemon: what it said itself, and what its files say.

use crate::cli::units::{duration, size};
use crate::config::Config;
use crate::net::certificate;
use crate::net::expiry::Expiry;
use crate::plural::counted;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(super) struct Report {
    settings: PathBuf,
    dev: bool,
    pid: Option<i32>,
    url: String,
    /// The daemon's answer; nothing if it gave none.
    daemon: Value,
    /// Why it gave none.
    refusal: Option<String>,
    /// Its file, and its end if that can be read.
    certificate: Option<(PathBuf, Option<Expiry>)>,
}

impl Report {
    pub fn new(config: &Config, pid: Option<i32>, url: String, answer: Result<Value, String>) -> Self {
        // In TLS mode the daemon was asked with this very certificate, so it is the one in use.
        let chain = if config.dev { None } else { certificate::chain(certificate::folder(config)).ok() };
        let certificate = chain.map(|(file, chain)| (file, chain.first().and_then(Expiry::of)));
        let (daemon, refusal) = answer.map_or_else(|refusal| (Value::Null, Some(refusal)), |answer| (answer, None));
        Self { settings: config.file.clone(), dev: config.dev, pid, url, daemon, refusal, certificate }
    }

    pub fn is_stopping(&self) -> bool {
        self.daemon["status"] == "stopping"
    }

    /// A number of the daemon's answer.
    fn number(&self, name: &str) -> Option<u64> {
        self.daemon[name].as_u64()
    }

    /// Lines of a name and a value; what the daemon did not report has none.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mode = if self.dev { "dev (no TLS)" } else { "TLS" };
        let facts = [
            ("version", self.daemon["version"].as_str().map(str::to_owned)),
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("uptime", self.number("uptime").map(duration)),
            ("settings", Some(self.settings.display().to_string())),
            ("mode", Some(mode.to_owned())),
            ("API", Some(self.url.clone())),
            ("mappings", self.number("mappings").map(|count| count.to_string())),
            ("free ports", self.number("availablePorts").map(|count| count.to_string())),
            ("agents", self.agents()),
            ("users", self.users()),
            ("throughput", self.throughput()),
            ("connections", self.use_of("connections", "maxconnections")),
            ("buffers", self.use_of("buffers", "maxbuffers")),
            ("certificate", self.expiry()),
        ];
        facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn agents(&self) -> Option<String> {
        Some(format!("{} ({} free, {} joined)", self.number("agents")?, self.number("free")?, self.number("joined")?))
    }

    fn users(&self) -> Option<String> {
        Some(format!("{} ({} waiting for an agent)", self.number("users")?, self.number("waiting")?))
    }

    fn throughput(&self) -> Option<String> {
        let [agents, users] = [self.number("rateport1")?, self.number("rateport2")?];
        Some(format!("{}/s from port 1 (agents), {}/s from port 2 (users)", size(agents), size(users)))
    }

    fn use_of(&self, count: &str, most: &str) -> Option<String> {
        Some(format!("{} of {}", self.number(count)?, self.number(most)?))
    }

    fn expiry(&self) -> Option<String> {
        let expiry = self.certificate.as_ref()?.1?;
        Some(format!("valid until {expiry} ({})", counted(expiry.days_left(), "day")))
    }

    /// What somebody should look after.
    pub fn warnings(&self) -> Vec<String> {
        let certificate = self.certificate.as_ref().and_then(|(file, expiry)| {
            Some(format!("{}: the certificate {}", file.display(), expiry.as_ref()?.warning()?))
        });
        let some = |name| self.number(name).filter(|count| *count > 0);
        let wait = |count| if count == 1 { "waits" } else { "wait" };
        let inactive = some("inactive")
            .map(|count| format!("{} {} for ports that are in use", counted(count, "mapping"), wait(count)));
        let full = self.is_full("connections", "maxconnections").then(|| "all connections are in use".to_owned());
        let starved = self.is_full("buffers", "maxbuffers").then(|| "all relay buffers are in use".to_owned());
        let pauses = some("pauses")
            .map(|count| format!("{} since its start no connection could be accepted", counted(count, "time")));
        [self.refusal.clone(), certificate, inactive, full, starved, pauses].into_iter().flatten().collect()
    }

    fn is_full(&self, count: &str, most: &str) -> bool {
        self.number(count).is_some_and(|count| Some(count) >= self.number(most))
    }

    /// All of it, with the daemon's own answer as it came.
    pub fn to_json(&self) -> Value {
        let certificate = self.certificate.as_ref().map(|(file, expiry)| {
            json!({
                "file": file,
                "validUntil": expiry.map(|expiry| expiry.to_string()),
                "daysLeft": expiry.map(|expiry| expiry.days_left()),
            })
        });
        json!({
            "status": if self.is_stopping() { "stopping" } else { "running" },
            "pid": self.pid,
            "settings": self.settings,
            "mode": if self.dev { "dev" } else { "tls" },
            "api": self.url,
            "certificate": certificate,
            "daemon": self.daemon,
            "warnings": self.warnings(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn config() -> Config {
        let layout = Layout::new("x.conf".into(), None, None);
        Config::parse(&layout, br#"{"ports": ["6000-6001"], "dev": true}"#).unwrap()
    }

    #[test]
    fn what_the_daemon_does_not_tell_has_no_line() {
        let config = config();
        let names = |answer| {
            let report = Report::new(&config, Some(7), "http://127.0.0.1:8080".to_owned(), answer);
            report.facts().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(Err("no".to_owned())), ["pid", "settings", "mode", "API"]);
        let reported = names(Ok(json!({"version": "2.0.0", "mappings": 3, "uptime": 5})));
        assert_eq!(reported, ["version", "pid", "uptime", "settings", "mode", "API", "mappings"]);
    }

    #[test]
    fn limits_that_are_reached_are_warned_of() {
        let config = config();
        let warnings = |connections, inactive, pauses| {
            let answer = json!({
                "connections": connections, "maxconnections": 10, "buffers": 0, "maxbuffers": 4,
                "inactive": inactive, "pauses": pauses,
            });
            Report::new(&config, None, String::new(), Ok(answer)).warnings()
        };
        assert_eq!(warnings(9, 0, 0), [""; 0]);
        assert_eq!(warnings(10, 0, 0), ["all connections are in use"]);
        assert_eq!(
            [1, 2].map(|count| warnings(0, count, 0).remove(0)),
            ["1 mapping waits for ports that are in use", "2 mappings wait for ports that are in use",]
        );
        assert!(warnings(0, 0, 3)[0].starts_with("3 times"));
        assert_eq!(Report::new(&config, None, String::new(), Ok(json!({}))).warnings(), [""; 0]);
    }
}
