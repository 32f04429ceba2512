//! What the service manager is notified of: systemd's notification protocol, sd_notify(3), without its library.
//!
//! One datagram a message, to the socket that the environment names. Without such a socket nothing is sent.
//! Nothing here blocks: a message that the manager cannot take at once is lost, as if it had hung.

use log::warn;
use nix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    /// It takes a process that is silent for longer than this for dead.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        match connect(&name) {
            Ok(socket) => Self { socket: Some(socket), watchdog: watchdog() },
            Err(error) => {
                warn!("NOTIFY_SOCKET {}: {error}; the service manager is not notified", name.to_string_lossy());
                Self::default()
            }
        }
    }

    /// It serves: all ports that can be bound are bound.
    pub fn ready(&self) {
        self.notify("READY=1");
    }

    /// The settings are being read again; [`Supervisor::ready`] ends that.
    pub fn reloading(&self) {
        // The manager matches this with the moment of its own signal.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The process is about to end.
    pub fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// Feeds the watchdog, twice in the time it waits. For the event loop itself, and for nobody else: only its own
    /// turns prove that it turns.
    pub fn heartbeat(self: &Arc<Self>) -> impl FnMut() + use<> {
        let (supervisor, mut next) = (Arc::clone(self), Instant::now());
        move || {
            let now = Instant::now();
            if let Some(period) = supervisor.watchdog.filter(|_| now >= next) {
                next = now + period / 2;
                supervisor.notify("WATCHDOG=1");
            }
        }
    }

    fn notify(&self, message: &str) {
        // If the manager cannot be reached, nobody else can be notified of that.
        let _ = self.socket.as_ref().map(|socket| socket.send(message.as_bytes()));
    }
}

/// A name that starts with `@` is an abstract one, of no file.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// How long the watchdog waits, if it means this process.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0).map(Duration::from_micros)
}
