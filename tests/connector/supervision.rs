//! What the service manager hears, at a socket like systemd's.

use crate::harness::{AgentProgram, Listed, Mode, PATIENCE, Setup, wait_until};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// A service manager's ear.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, name: path.to_str().expect("UTF-8").to_owned(), _folder: folder }
    }

    fn without_a_path() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = folder.path().to_str().expect("UTF-8");
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Self { socket, name: format!("@{name}"), _folder: folder }
    }

    /// The next message, if one comes in time.
    fn hear(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a socket");
        let mut message = [0; 1024];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// The next message that starts like this; all before it are taken.
    #[track_caller]
    fn expect(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Some(message) =
            self.hear(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        {
            if message.starts_with(start) {
                return message;
            }
        }
        panic!("{start} was not heard");
    }
}

#[test]
fn ready_comes_when_the_stored_mappings_are_open() {
    for manager in [Manager::at_a_path(), Manager::without_a_path()] {
        let mut daemon = Setup::new(Mode::Plain).environment("NOTIFY_SOCKET", &manager.name).prepare();
        daemon.spawn();
        manager.expect("READY=1");
        let mappings: Vec<_> = (0..10).map(|_| daemon.add_public(1)).collect();
        daemon.kill();
        daemon.spawn();
        manager.expect("READY=1");
        for port in mappings.iter().flat_map(|mapping| mapping.ports) {
            TcpStream::connect(("127.0.0.1", port)).expect("a port that is open");
        }
    }
}

#[test]
fn the_end_is_announced_however_it_comes() {
    let manager = Manager::at_a_path();
    let mut daemon = Setup::new(Mode::Plain).environment("NOTIFY_SOCKET", &manager.name).start();
    assert_eq!(daemon.terminate().code(), Some(0));
    manager.expect("STOPPING=1");
    daemon.start();
    daemon.controller().post("/api/v2/commandline", "command=stop");
    manager.expect("STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_reload_is_announced_with_its_moment_and_ends_with_ready() {
    let manager = Manager::at_a_path();
    let daemon = Setup::new(Mode::Plain).environment("NOTIFY_SOCKET", &manager.name).start();
    manager.expect("READY=1");
    daemon.signal(libc::SIGHUP);
    let message = manager.expect("RELOADING=1");
    let moment = message.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok());
    assert!(moment.is_some_and(|moment| moment > 0), "{message}");
    manager.expect("READY=1");
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_loop_turns() {
    let manager = Manager::at_a_path();
    let setup = Setup::new(Mode::Plain).environment("NOTIFY_SOCKET", &manager.name);
    let daemon = setup.environment("WATCHDOG_USEC", "2000000").start();
    for _ in 0..3 {
        manager.expect("WATCHDOG=1");
    }
    daemon.signal(libc::SIGSTOP);
    wait_until("everything is stopped", PATIENCE, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it is there");
        stat.contains(") T ")
    });
    while manager.hear(Duration::from_millis(50)).is_some() {}
    // Longer than the watchdog waits: nothing must come.
    assert_eq!(manager.hear(Duration::from_secs(3)), None);
    daemon.signal(libc::SIGCONT);
    manager.expect("WATCHDOG=1");
}

#[test]
fn nobody_feeds_a_watchdog_that_means_another_process() {
    let manager = Manager::at_a_path();
    let setup = Setup::new(Mode::Plain).environment("NOTIFY_SOCKET", &manager.name);
    let _daemon = setup.environment("WATCHDOG_USEC", "1000000").environment("WATCHDOG_PID", "1").start();
    manager.expect("READY=1");
    assert_eq!(manager.hear(Duration::from_secs(2)), None);
}

#[test]
fn an_agent_says_when_it_is_ready_alive_reloading_and_stopping() {
    let daemon = &Setup::new(Mode::Plain).start();
    let manager = Manager::at_a_path();
    let mapping = daemon.add_public(1);
    let service = Listed { name: "web", mapping: &mapping, side: 0, local: ("to", 1), connections: 1 };
    let agent = AgentProgram::of_services(daemon, &[service]).environment("NOTIFY_SOCKET", &manager.name);
    let mut agent = agent.environment("WATCHDOG_USEC", "2000000").spawn();
    manager.expect("READY=1");
    manager.expect("WATCHDOG=1");
    manager.expect("WATCHDOG=1");
    for are_broken in [false, true] {
        if are_broken {
            agent.configure("{");
        }
        agent.reload("Reload");
        assert!(manager.expect("RELOADING=1").contains("MONOTONIC_USEC="));
        manager.expect("READY=1");
    }
    assert!(agent.terminate().success());
    manager.expect("STOPPING=1");
}
