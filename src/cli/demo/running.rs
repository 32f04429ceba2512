//! The three programs of the demo, each in a thread of its own: Connector, agent, web server.

use super::{CONNECTIONS, Mapping};
use crate::agent::settings::Draft;
use crate::agent::{self, Agent};
use crate::cli::Failure;
use crate::clock;
use crate::daemon::{Daemon, Options};
use crate::exit;
use crate::layout::Layout;
use crate::logging::Format;
use crate::net::trust::Trust;
use crate::secret::Secret;
use crate::supervisor::Supervisor;
use log::LevelFilter;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tiny_http::{Header, Response, Server};

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>It works</title>
<h1>It works</h1>
<p>This page came from a web server that nobody can reach from outside.
An agent beside it had dialled out to a Connector; you connected to the Connector,
and it joined you to that connection.</p>
</html>
";

/// A thread that does one program's work.
pub(super) struct Running(JoinHandle<Result<(), Failure>>);

impl Running {
    fn spawn(name: &str, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<Self, Failure> {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
        spawned.map(Self).map_err(|e| Failure::new(exit::SYSTEM, format!("no thread for the {name}: {e}")))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end.
    pub(super) fn wait(self) -> Result<(), Failure> {
        self.0.join().unwrap_or_else(|_| Err(Failure::new(exit::SOFTWARE, "a thread has died")))
    }
}

/// The daemon. It ends by itself on Ctrl-C, or when its API is asked for it.
pub(super) fn start_connector(settings: &Path, log: PathBuf) -> Result<Running, Failure> {
    let layout = Layout::new(settings.to_owned(), None, None);
    let daemon = Daemon::enter(Options {
        layout,
        user: None,
        log_file: Some(log),
        log_level: LevelFilter::Info,
        log_format: Format::Text,
    })?;
    Running::spawn("connector", move || Ok(daemon.run()?))
}

/// The agent, which makes the service on port `page` reachable until its handle stops it. `certificate`: the
/// Connector's; `None` in dev mode.
pub(super) fn start_agent(
    mapping: &Mapping,
    page: u16,
    certificate: Option<&Path>,
) -> Result<(agent::Handle, Running), Failure> {
    let trust = certificate.map(CertificateDer::from_pem_file).transpose();
    let trust = trust.map_err(|e| Failure::new(exit::CONFIG, format!("the certificate that was just made: {e}")))?;
    let draft = Draft {
        host: Some("127.0.0.1".to_owned()),
        port: Some(mapping.port1),
        connections: Some(CONNECTIONS),
        passcode: Some(Secret::new(mapping.passcode1.as_str())),
        local_port: Some(page),
        dev: trust.is_none(),
        trust: trust.map(Trust::Only).map(Arc::new),
        ..Draft::default()
    };
    let settings = draft.complete().map_err(|e| Failure::new(e.status(), e))?;
    let (mut agent, handle) =
        Agent::new(vec![settings], Supervisor::default()).map_err(|e| Failure::new(e.status(), e))?;
    Ok((handle, Running::spawn("agent", move || agent.run().map_err(agent_failed))?))
}

pub(super) fn agent_failed(cause: io::Error) -> Failure {
    Failure::new(exit::SYSTEM, format!("the agent: {cause}"))
}

/// A web server that listens on this machine only, as long as the process lives. Returns its port.
pub(super) fn start_page() -> io::Result<u16> {
    let server = Server::http((Ipv4Addr::LOCALHOST, 0)).map_err(io::Error::other)?;
    let port = server.server_addr().to_ip().map(|address| address.port());
    let port = port.ok_or_else(|| io::Error::other("the page listens on no port"))?;
    thread::Builder::new().name("page".into()).spawn(move || {
        for request in server.incoming_requests() {
            let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8");
            // The library would look at the clock by itself.
            let date = Header::from_bytes("Date", clock::http_date());
            let headers = html.into_iter().chain(date);
            let response = headers.fold(Response::from_string(PAGE), Response::with_header);
            // A reader that has left needs no page.
            let _ = request.respond(response);
        }
    })?;
    Ok(port)
}
