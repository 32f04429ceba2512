//! The demo's web page: a service that listens on this machine only.

use std::io;
use std::net::Ipv4Addr;
use std::thread;
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

/// Serves the page in a thread of its own, as long as the process lives. Returns the port.
pub(super) fn serve() -> io::Result<u16> {
    let server = Server::http((Ipv4Addr::LOCALHOST, 0)).map_err(io::Error::other)?;
    let port = server.server_addr().to_ip().map(|address| address.port());
    let port = port.ok_or_else(|| io::Error::other("the page listens on no port"))?;
    thread::Builder::new().name("page".into()).spawn(move || {
        for request in server.incoming_requests() {
            let html = Header::from_bytes("Content-Type", "text/html; charset=utf-8");
            let response = html.into_iter().fold(Response::from_string(PAGE), Response::with_header);
            // A reader that has left needs no page.
            let _ = request.respond(response);
        }
    })?;
    Ok(port)
}
