//! The daemon under test: the real binary with a settings file of its own in a temporary folder.

use super::{BINARY, Certificate, Controller, Dial, PATIENCE, PortBlock, process, test_certificate, wait_until};
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};
use tempfile::TempDir;

/// Dev mode or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Tls,
}

/// Runs a test in both modes side by side, each with a daemon of its own.
pub fn in_both_modes(test: impl Fn(&mut Daemon) + Sync) {
    for_both_modes(|mode| test(&mut Setup::new(mode).start()));
}

/// The version of the pipe protocol that an agent speaks with a Connector that knows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    One = 1,
    Two = 2,
}

impl Version {
    const BOTH: [Self; 2] = [Self::One, Self::Two];
}

/// Runs a test in both modes, with agents of both versions.
pub fn in_both_versions(test: impl Fn(&mut Daemon, Version) + Sync) {
    in_both_modes(|daemon| Version::BOTH.iter().for_each(|&version| test(daemon, version)));
}

/// Like [`in_both_versions`], for a test that starts its daemon itself.
pub fn for_both_versions(test: impl Fn(Mode, Version) + Sync) {
    for_both_modes(|mode| Version::BOTH.iter().for_each(|&version| test(mode, version)));
}

/// Like [`in_both_versions`], without TLS only.
pub fn in_both_versions_plain(test: impl Fn(&mut Daemon, Version)) {
    let mut daemon = Setup::new(Mode::Plain).start();
    Version::BOTH.iter().for_each(|&version| test(&mut daemon, version));
}

/// Like [`in_both_modes`], for a test that starts its daemon itself.
pub fn for_both_modes(test: impl Fn(Mode) + Sync) {
    thread::scope(|scope| {
        for mode in [Mode::Plain, Mode::Tls] {
            let test = &test;
            let thread = thread::Builder::new().name(format!("{mode:?}"));
            thread.spawn_scoped(scope, move || test(mode)).expect("a thread");
        }
    });
}

/// What a daemon is started with.
pub struct Setup {
    mode: Mode,
    settings: Value,
    certificate: Certificate,
    wrapper: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    ports: PortBlock,
}

impl Setup {
    pub fn new(mode: Mode) -> Self {
        let ports = PortBlock::reserve();
        let (first, last) = ports.mappings();
        let settings = json!({
            "ports": [format!("{first}-{last}")],
            "exclude": [],
            "broker": ports.broker(),
            "address": "127.0.0.1",
            "dev": mode == Mode::Plain,
            "listen": "127.0.0.1",
            "apiport": ports.api(),
        });
        let certificate = test_certificate().clone();
        Self { mode, settings, certificate, wrapper: None, arguments: Vec::new(), environment: Vec::new(), ports }
    }

    /// Sets a key of the settings file.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings[key] = value.into();
        self
    }

    /// Leaves a key out of the settings file.
    pub fn without(mut self, key: &str) -> Self {
        self.settings.as_object_mut().expect("an object").remove(key);
        self
    }

    /// Only the first `count` ports of the block for mappings.
    pub fn first_ports(self, count: u16) -> Self {
        let first = self.ports.mappings().0;
        self.set("ports", json!([format!("{first}-{}", first + count - 1)]))
    }

    /// The last port of the block, which a key may name for another use than mappings.
    pub fn last_port(&self) -> u16 {
        self.ports.mappings().1
    }

    pub fn certificate(self, certificate: Certificate) -> Self {
        Self { certificate, ..self }
    }

    /// With so many descriptors at most.
    pub fn descriptors(self, most: u32) -> Self {
        self.wrapped(format!("ulimit -n {most} && exec \"$0\" \"$@\""))
    }

    /// Started by this shell script, in which `"$0" "$@"` is the daemon with its arguments, and `$FOLDER` the folder of
    /// its settings file. The shell's process must become the daemon.
    pub fn wrapped(self, script: String) -> Self {
        Self { wrapper: Some(script), ..self }
    }

    /// With a further word behind `start`.
    pub fn argument(mut self, word: impl Into<String>) -> Self {
        self.arguments.push(word.into());
        self
    }

    /// With a variable in its environment.
    pub fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Writes the files without starting anything.
    pub fn prepare(self) -> Daemon {
        let folder = TempDir::new().expect("a temporary folder");
        if self.mode == Mode::Tls {
            fs::write(folder.path().join("server-cert.pem"), &self.certificate.chain).expect("a file");
            fs::write(folder.path().join("server-key.pem"), &self.certificate.key).expect("a file");
        }
        fs::write(folder.path().join("connector.conf"), self.settings.to_string()).expect("a file");
        let tls = (self.mode == Mode::Tls).then(|| self.certificate.client(rustls::ALL_VERSIONS));
        let Self { mode, ports, wrapper, arguments, environment, .. } = self;
        let (child, secrets) = (None, Mutex::default());
        Daemon { mode, folder, ports, wrapper, arguments, environment, tls, child, secrets }
    }

    /// Starts the daemon and waits until its API answers.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start();
        daemon
    }
}

/// A daemon under test. When it goes, it must not have panicked, and its log must not tell any passcode.
pub struct Daemon {
    pub mode: Mode,
    pub ports: PortBlock,
    folder: TempDir,
    wrapper: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    tls: Option<Arc<ClientConfig>>,
    child: Option<Child>,
    secrets: Mutex<Vec<String>>,
}

impl Daemon {
    /// Starts it and waits until its API answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        let controller = self.controller();
        wait_until("the API answers", PATIENCE, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            assert!(ended.is_none(), "the daemon ended with {ended:?}:\n{}", self.log());
            controller.try_post("/api/v2/status", "mappingid=all").is_ok()
        });
    }

    /// A variable in its environment, for its next start.
    pub fn set_environment(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a file");
        let mut command = match &self.wrapper {
            None => Command::new(BINARY),
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.env("FOLDER", self.folder()).arg("-c").arg(script).arg(BINARY);
                shell
            }
        };
        command.args(["start", "--log-level", "debug", "--config"]).arg(self.path("connector.conf"));
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.child = Some(command.spawn().expect("the binary"));
    }

    /// Starts another one with the same settings, whether this one runs or not.
    pub fn successor(&self) -> Child {
        let mut command = Command::new(BINARY);
        command.args(["start", "--config"]).arg(self.path("connector.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary")
    }

    /// Gives it another certificate, for its next start.
    pub fn install(&mut self, certificate: &Certificate) {
        fs::write(self.path("server-cert.pem"), &certificate.chain).expect("a file");
        fs::write(self.path("server-key.pem"), &certificate.key).expect("a file");
        self.tls = Some(certificate.client(rustls::ALL_VERSIONS));
    }

    /// Asks it to end, as init systems do, and waits for that.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Ends it as a power failure would.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the process is a child that was not waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(self.pid() as i32, signal) }, 0, "{}", io::Error::last_os_error());
    }

    /// Stops its clock: what happens meanwhile, it hears of at once. Returns when it stands still.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        wait_until("it stands still", PATIENCE, || process::is_stopped(self.pid()));
    }

    /// Ends [`Daemon::freeze`].
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it was started");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it did not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        };
        self.child = None;
        status
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().expect("it was started").try_wait().expect("a child").is_some()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// A file beside the settings file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        fs::read(self.path("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// A way to one of its ports, with TLS if it is not in dev mode.
    pub fn dial(&self, port: u16) -> Dial {
        Dial::new(port, self.tls.clone())
    }

    pub fn controller(&self) -> Controller {
        Controller { dial: self.dial(self.ports.api()) }
    }

    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }

    pub fn resident_kib(&self) -> u64 {
        process::resident_kib(self.pid())
    }

    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.pid())
    }

    pub fn threads(&self) -> u64 {
        process::threads(self.pid())
    }

    /// Remembers what must never be in the log.
    pub fn keep_secret(&self, secret: &str) {
        self.secrets.lock().expect("no panic under this lock").push(secret.to_owned());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = match &mut self.child {
            None => None,
            Some(child) => {
                let ended = child.try_wait().expect("a child");
                let _ = child.kill();
                let _ = child.wait();
                ended
            }
        };
        let log = self.log();
        if thread::panicking() {
            let from = log.char_indices().rev().nth(4000).map_or(0, |(place, _)| place);
            eprintln!("--- what the daemon said last\n{}\n---", &log[from..]);
            return;
        }
        assert!(ended.is_none(), "the daemon ended by itself with {ended:?}:\n{log}");
        // Where a test takes descriptors away, the acceptor of the HTTP library may fail, which the daemon survives.
        let may_fail = self.environment.iter().any(|(name, _)| *name == "FAULTS");
        let is_survived = |line: &str| may_fail && line.contains("Internal error in the API, one connection is closed");
        let panicked = log.lines().any(|line| line.contains("panicked") && !is_survived(line));
        assert!(!panicked, "the daemon panicked:\n{log}");
        for secret in self.secrets.lock().expect("no panic under this lock").iter().filter(|s| !s.is_empty()) {
            assert!(!log.contains(secret), "a passcode is in the log:\n{log}");
        }
    }
}
