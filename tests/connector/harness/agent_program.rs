//! `iofog-connector agent` under test: the real binary, pointed at one side of a mapping.

use super::{BINARY, Daemon, Mapping, Mode, PATIENCE, Version, process, test_certificate, wait_until};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{io, thread};
use tempfile::TempDir;

/// A service of an agent's settings file.
pub struct Listed<'a> {
    pub name: &'a str,
    pub mapping: &'a Mapping,
    pub side: usize,
    /// The key `to` or `listen`, and the port of 127.0.0.1 that it names.
    pub local: (&'a str, u16),
    pub connections: u16,
}

impl Listed<'_> {
    fn as_json(&self) -> Value {
        let Self { name, mapping, side, local: (key, port), connections } = self;
        json!({"name": name, "port": mapping.ports[*side], "passcode": mapping.passcodes[*side],
            *key: format!("127.0.0.1:{port}"), "connections": connections})
    }
}

/// An agent. When it goes, it must not have panicked, and its log must not tell the passcode.
pub struct AgentProgram {
    folder: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    passcode: String,
    /// What its settings file says of each service; `None`: nothing.
    version: Option<Version>,
    child: Option<Child>,
}

impl AgentProgram {
    /// For port1 (0) or port2 (1) of `mapping`, with what it takes to be let in there.
    pub fn new(daemon: &Daemon, mapping: &Mapping, side: usize) -> Self {
        let agent = Self::bare(&mapping.passcodes[side]);
        let agent = agent.with(&["--connector", &format!("127.0.0.1:{}", mapping.ports[side])]);
        match daemon.mode {
            Mode::Plain => agent.with(&["--dev"]),
            Mode::Tls => agent.trusting(&test_certificate().chain),
        }
    }

    /// One that knows a passcode and nothing else.
    pub fn bare(passcode: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::write(folder.path().join("passcode"), format!("{passcode}\n")).expect("a file");
        let file = folder.path().join("passcode").display().to_string();
        let arguments = ["--log-level", "debug", "--passcode-file", &file].map(str::to_owned).to_vec();
        Self { folder, arguments, variables: Vec::new(), passcode: passcode.to_owned(), version: None, child: None }
    }

    /// One that knows nothing but a configuration file.
    pub fn configured(configuration: &str, passcode: &str) -> Self {
        let mut agent = Self::bare(passcode);
        let file = agent.folder.path().join("agent.json");
        fs::write(&file, configuration).expect("a file");
        agent.arguments = vec!["--config".to_owned(), file.display().to_string()];
        agent
    }

    /// One whose settings file lists these services, each for port1 (0) or port2 (1) of a mapping.
    pub fn of_services(daemon: &Daemon, services: &[Listed<'_>]) -> Self {
        let agent = Self::configured("", "hush-hush-hush");
        fs::write(agent.folder.path().join("ca.pem"), &test_certificate().chain).expect("a file");
        agent.list(daemon, services);
        agent
    }

    /// Lists these services in its settings file from now on.
    pub fn list(&self, daemon: &Daemon, services: &[Listed<'_>]) {
        let list: Vec<Value> = services.iter().map(Listed::as_json).collect();
        let connector = json!({"connector": "127.0.0.1", "ca": "ca.pem", "dev": daemon.mode == Mode::Plain,
            "services": list});
        self.configure(&connector.to_string());
    }

    /// Writes this to its settings file. If it lists services, they speak the version of [`AgentProgram::speaking`].
    pub fn configure(&self, configuration: &str) {
        let mut text = configuration.to_owned();
        if let (Some(version), Ok(Value::Object(mut keys))) = (self.version, serde_json::from_str(configuration)) {
            keys.insert("protocol".to_owned(), json!(version as u8));
            text = Value::Object(keys).to_string();
        }
        fs::write(self.folder.path().join("agent.json"), text).expect("a file");
    }

    /// Speaks this version of the pipe protocol.
    pub fn speaking(mut self, version: Version) -> Self {
        match fs::read_to_string(self.folder.path().join("agent.json")) {
            Err(_) => self.with(&["--protocol", &(version as u8).to_string()]),
            Ok(configuration) => {
                self.version = Some(version);
                self.configure(&configuration);
                self
            }
        }
    }

    /// Each service says of its settings that its pipe is of this kind.
    pub fn in_mode(self, mode: &str) -> Self {
        let text = fs::read_to_string(self.folder.path().join("agent.json")).expect("a file");
        self.configure(&text.replace("\"name\":", &format!("\"mode\":\"{mode}\",\"name\":")));
        self
    }

    /// Has it read its settings again, and waits until its log has `words` once more.
    #[track_caller]
    pub fn reload(&self, words: &str) {
        let count = |agent: &Self| agent.log().matches(words).count();
        let before = count(self);
        self.signal(libc::SIGHUP);
        wait_until("the agent has reloaded", PATIENCE, || count(self) > before);
    }

    /// What `agent check` says of its settings file, and its status.
    pub fn check(&self) -> (String, Option<i32>) {
        let file = self.folder.path().join("agent.json");
        let output = Command::new(BINARY).args(["agent", "check", "--config"]).arg(file).output().expect("the binary");
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.code())
    }

    /// What `agent status` says, and its status.
    pub fn status(&self, options: &[&str]) -> (String, Option<i32>) {
        let mut command = Command::new(BINARY);
        command.args(["agent", "status", "--socket"]).arg(self.socket()).args(options);
        let output = command.output().expect("the binary");
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.code())
    }

    /// A file beside its settings.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// With a socket for its status.
    pub fn with_socket(self) -> Self {
        let socket = self.socket().display().to_string();
        self.with(&["--socket", &socket])
    }

    /// With further options.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With the certificates of this PEM text in its --ca.
    pub fn trusting(self, pem: &str) -> Self {
        let file = self.folder.path().join("ca.pem");
        fs::write(&file, pem).expect("a file");
        self.with(&["--ca", &file.display().to_string()])
    }

    /// With the passcode in the environment.
    pub fn with_passcode_in_environment(mut self) -> Self {
        self.variables.push(("IOFOG_PASSCODE".to_owned(), self.passcode.clone()));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an environment variable that points to a file with this content.
    pub fn with_file_in(mut self, variable: &str, content: &str) -> Self {
        let file = self.folder.path().join(variable);
        fs::write(&file, content).expect("a file");
        self.variables.push((variable.to_owned(), file.display().to_string()));
        self
    }

    /// Making a service on this port of 127.0.0.1 reachable, with so many connections.
    pub fn exposing(self, port: u16, connections: u16) -> Self {
        self.with(&["--to", &format!("127.0.0.1:{port}"), "--connections", &connections.to_string()])
    }

    /// Listening for clients on this port of 127.0.0.1, with so many connections.
    pub fn listening(self, port: u16, connections: u16) -> Self {
        self.with(&["--listen", &format!("127.0.0.1:{port}"), "--connections", &connections.to_string()])
    }

    /// Starts it and waits for nothing.
    pub fn spawn(mut self) -> Self {
        self.respawn();
        self
    }

    /// Starts it and waits until it is authorized.
    #[track_caller]
    pub fn start(self) -> Self {
        let agent = self.spawn();
        agent.wait_for("Authorized by the Connector");
        agent
    }

    /// Starts it again after it has ended.
    pub fn respawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).expect("a file");
        let mut command = Command::new(BINARY);
        command.arg("agent").args(&self.arguments).envs(self.variables.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.child = Some(command.spawn().expect("the binary"));
    }

    /// Waits until the log has `words`.
    #[track_caller]
    pub fn wait_for(&self, words: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(std::time::Instant::now() < deadline, "{words:?} is not in the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything it said so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log"));
        log.map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    pub fn signal(&self, signal: i32) {
        let pid = self.pid() as i32;
        // SAFETY: plain system call; the process is a child that was not waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{}", io::Error::last_os_error());
    }

    /// It stands still from when this returns.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
        wait_until("it stands still", PATIENCE, || process::is_stopped(self.pid()));
    }

    /// Ends [`AgentProgram::freeze`].
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Ends it as a power failure would.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    /// Asks it to end, as init systems do, and waits for that.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        let mut status = None;
        wait_until("the agent has ended", PATIENCE, || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("the line above")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    pub fn resident_kib(&self) -> u64 {
        process::resident_kib(self.pid())
    }

    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.pid())
    }

    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }
}

impl Drop for AgentProgram {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- what the agent said\n{log}\n---");
            return;
        }
        assert!(!log.contains("panicked"), "the agent panicked:\n{log}");
        assert!(!log.contains(&self.passcode), "the passcode is in the log:\n{log}");
    }
}
