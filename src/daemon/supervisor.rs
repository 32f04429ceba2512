//! What the service manager is told: systemd's notification protocol, sd_notify(3), without its library.
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
    /// It takes a daemon that is silent for longer than this for dead.
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

    /// All ports that can be bound are bound.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The settings are being read again; [`Supervisor::ready`] ends that.
    pub fn reloading(&self) {
        // The manager matches this with the moment of its own signal.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// For the event loop itself, and for nobody else: only its own turns prove that it turns.
    pub fn pulse(self: &Arc<Self>) -> Pulse {
        Pulse { supervisor: Arc::clone(self), next: Instant::now() }
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // Nobody to tell it to.
            let _ = socket.send(message.as_bytes());
        }
    }
}

/// Feeds the watchdog, twice in the time it waits.
pub struct Pulse {
    supervisor: Arc<Supervisor>,
    next: Instant,
}

impl Pulse {
    pub fn beat(&mut self) {
        let Some(period) = self.supervisor.watchdog else { return };
        let now = Instant::now();
        if now >= self.next {
            self.next = now + period / 2;
            self.supervisor.tell("WATCHDOG=1");
        }
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

/// The watchdog's patience, if it means this process.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0).map(Duration::from_micros)
}
