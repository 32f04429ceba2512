//! `agent status`: what an agent says of itself through its socket.

use crate::agent::arguments::Status;
use crate::agent::status::{Report, ServiceReport, connect};
use crate::cli::output::{complain, say, say_table};
use crate::cli::units::{duration, size};
use crate::cli::{Failure, Outcome, identity};
use crate::exit;
use crate::json;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the packages' service has it.
const DEFAULT_SOCKET: &str = "/run/iofog-connector-agent/iofog-connector-agent.sock";
/// The whole answer must be there after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than all services of an agent come to, bytes.
const LONGEST: usize = 16 * 1024 * 1024;

pub(super) fn run(status: &Status, socket: Option<&Path>) -> Outcome {
    let socket = status.socket.as_deref().or(socket).unwrap_or(Path::new(DEFAULT_SOCKET));
    let unknown = |e: io::Error| Failure::new(exit::UNKNOWN, format!("{}: {e}", socket.display()));
    let stopped = || {
        complain(format!("no agent answers at {}", socket.display()));
        Ok(exit::STOPPED)
    };
    if socket.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        return stopped();
    }
    // Whoever can put a link there could lead root to any socket of the machine's.
    identity::take_on_for(&[socket], identity::TIMEOUT)?;
    let stream = match connect(socket) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return stopped(),
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            return Err(Failure::new(exit::UNKNOWN, format!("{}: the agent does not answer", socket.display())));
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            return Err(Failure::new(exit::NOT_PERMITTED, format!("{}: {e}", socket.display())));
        }
        Err(e) => return Err(unknown(e)),
    };
    let text = read(stream).map_err(unknown)?;
    if text.is_empty() {
        return Err(unknown(io::Error::other("it gives no answer")));
    }
    let report: Report = serde_json::from_slice(&text)
        .map_err(|e| unknown(io::Error::other(format!("this is no agent's status: {}", json::explained(&e)))))?;
    if status.json {
        say(String::from_utf8_lossy(&text));
    } else {
        print(&report);
    }
    Ok(exit::OK)
}

fn read(mut stream: UnixStream) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let (mut text, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || text.len() > LONGEST {
            return Err(io::Error::new(ErrorKind::TimedOut, "the agent does not finish its answer"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

fn print(report: &Report) {
    let heads = ["service", "connector", "local", "connections", "sessions", "received", "sent", "since"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(report.services.iter().map(|service| row(service, report.timestamp)));
    say_table(&rows);
    for service in &report.services {
        if let Some(error) = &service.lasterror {
            let ago = duration(report.timestamp.saturating_sub(error.timestamp));
            say(format!("{}: last error {ago} ago: {}", name(service), error.problem));
        }
    }
}

fn name(service: &ServiceReport) -> &str {
    service.name.as_deref().unwrap_or("agent")
}

fn row(service: &ServiceReport, now: u64) -> Vec<String> {
    let local = match (&service.to, &service.listen) {
        (_, Some(listen)) => format!("listens on {listen}"),
        (to, None) => to.clone().unwrap_or_default(),
    };
    vec![
        name(service).to_owned(),
        service.connector.clone(),
        local,
        format!("{} of {}", service.connections, service.maxconnections),
        format!("{} ({} in all)", service.sessions, service.totalsessions),
        size(service.received),
        size(service.sent),
        duration(now.saturating_sub(service.since)),
    ]
}
