//! The command line, used as people and scripts use it: the real binary, its output and its exit status.

use super::{BINARY, Daemon, PATIENCE, wait_until};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a command said, and its exit status.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The words behind a name, of a command that prints names and values.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))
    }
}

/// Runs the binary with these words, with its output in pipes.
#[track_caller]
pub fn command(words: &[&str]) -> Said {
    command_within(PATIENCE, words)
}

/// Runs the binary with `words`, for commands that wait longer than others.
#[track_caller]
pub fn command_within(patience: Duration, words: &[&str]) -> Said {
    let mut command = Command::new(BINARY);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary");
    wait_until(&format!("{words:?} ends"), patience, || child.try_wait().expect("a child").is_some());
    let output = child.wait_with_output().expect("its output");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said { status: output.status.code().expect("an exit status"), out: text(output.stdout), err: text(output.stderr) }
}

impl Daemon {
    /// Runs a command that means this daemon.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Said {
        let settings = self.path("connector.conf");
        let mut words = words.to_vec();
        words.extend(["--config", settings.to_str().expect("UTF-8")]);
        command(&words)
    }
}
