//! The agent in numbers, in Prometheus' text format.

use super::status::{Report, ServiceReport};
use crate::clock::millis;
use crate::logging::{self, LOGS};
use crate::prometheus::process::{Process, of_process};
use crate::prometheus::{block, labels};
use std::time::SystemTime;

/// What our own names begin with.
const PREFIX: &str = "iofog_connector_agent_";

/// The number of a service that a metric tells.
type Number = fn(&ServiceReport) -> u64;

/// Name, help and number of each metric of a service.
const SERVICE: &[(&str, &str, Number)] = &[
    ("connections", "Authorized connections to the Connector.", |it| it.connections as u64),
    ("connections_max", "Connections to the Connector that there are to be.", |it| it.maxconnections as u64),
    ("sessions", "Sessions that are there now.", |it| it.sessions as u64),
    ("sessions_total", "Sessions that have begun.", |it| it.totalsessions),
    ("clients_waiting", "Clients of a tunnel that wait for a connection.", |it| it.waiting as u64),
    ("received_bytes_total", "Payload that came through the Connector.", |it| it.received),
    ("sent_bytes_total", "Payload that went to the Connector.", |it| it.sent),
    (
        "service_start_time_seconds",
        "Since when the service is as its settings say, in seconds since the epoch.",
        |it| it.since / 1000,
    ),
    ("last_error_timestamp_seconds", "When something went wrong last, in seconds since the epoch; 0: never.", |it| {
        it.lasterror.as_ref().map_or(0, |error| error.timestamp / 1000)
    }),
];

/// The whole text.
pub(super) fn text(report: &Report, started: SystemTime) -> String {
    let mut text = String::new();
    let version = [(labels(&[("version", &report.version)]), 1)];
    block(&mut text, PREFIX, "build_info", "Always 1; the label tells the version.", version);
    block(&mut text, PREFIX, "services", "Services that there are.", [("", report.services.len())]);
    let name = |service: &ServiceReport| labels(&[("service", service.name.as_deref().unwrap_or_default())]);
    let names: Vec<String> = report.services.iter().map(name).collect();
    for (metric, help, number) in SERVICE {
        block(&mut text, PREFIX, metric, help, names.iter().zip(report.services.iter().map(number)));
    }
    let lost = LOGS.map(|(which, name)| (labels(&[("log", name)]), logging::lost(which)));
    block(&mut text, PREFIX, "log_lines_lost_total", "Lines of a log that could not be written, by log.", lost);
    of_process(&mut text, &Process::read(), millis(started));
    text
}
