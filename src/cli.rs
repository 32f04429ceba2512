//! The command line: one file a family of commands, one function a command.
//!
//! A command that concerns a daemon takes `--config` and means the daemon of that settings file. What was asked for
//! goes to standard output, everything else to standard error; exit statuses are those of [`crate::exit`].

#[macro_use]
mod options;

mod agent;
mod cert;
mod check;
pub(crate) mod client;
mod demo;
mod identity;
mod mapping;
mod output;
mod signal;
mod start;
mod status;
mod units;
mod usage;

use crate::config::ConfigError;
use crate::control::commandline::{HELP, VERSION};
use crate::daemon::StartError;
use crate::exit;
use argh::{EarlyExit, FromArgs};
use output::{complain, say};
use std::ffi::OsString;
use std::fmt;

/// The program's name, as its messages begin.
const NAME: &str = "iofog-connector";

/// Relay for edge computing: joins outside users to agents behind NAT, and agents to each other.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Start(start::Start),
    Stop(signal::Stop),
    Reload(signal::Reload),
    Status(status::Status),
    Check(check::Check),
    Mapping(mapping::Mapping),
    Cert(cert::Cert),
    Agent(Box<crate::agent::arguments::Arguments>),
    Demo(demo::Demo),
}

/// What a command came to: an exit status, or why it could not do its work.
type Outcome = Result<u8, Failure>;

/// Why a command could not do its work: a line for people, a status for programs.
#[derive(Debug)]
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, message: impl fmt::Display) -> Self {
        Self { status, message: message.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(exit::CONFIG, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.status(), error)
    }
}

/// Does what the words after the program's name ask for; returns the exit status.
pub fn run(words: impl Iterator<Item = OsString>) -> u8 {
    let words: Result<Vec<String>, OsString> = words.map(OsString::into_string).collect();
    let outcome = match words {
        Ok(words) => run_words(&words.iter().flat_map(|word| split_value(word)).collect::<Vec<_>>()),
        Err(word) => Err(Failure::new(exit::USAGE, format!("{}: not valid UTF-8", word.to_string_lossy()))),
    };
    output::settled(outcome.unwrap_or_else(|failure| {
        complain(failure.message);
        failure.status
    }))
}

/// The parser wants an option and its value as two words; people and packages write `--option=value`, too.
fn split_value(word: &str) -> impl Iterator<Item = &str> {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (option, Some(value)),
        _ => (word, None),
    };
    std::iter::once(option).chain(value)
}

fn run_words(words: &[&str]) -> Outcome {
    let words = usage::normalized(words);
    match words.as_slice() {
        // The parser knows neither `-v` nor `-?`.
        ["version" | "-v" | "-V" | "--version", ..] => say(VERSION),
        ["help" | "-h" | "-?" | "--help", ..] => say(HELP),
        [] => return Err(Failure::new(exit::USAGE, format!("expected a command\n\n{HELP}"))),
        words => match Arguments::from_args(&[NAME], words) {
            Ok(arguments) => return arguments.command.run(),
            Err(EarlyExit { output, status: Ok(()) }) => say(output.trim_end()),
            Err(EarlyExit { output, status: Err(()) }) => {
                return Err(Failure::new(exit::USAGE, usage::explained(words, output.trim_end())));
            }
        },
    }
    Ok(exit::OK)
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Self::Start(start) => start.run(),
            Self::Stop(stop) => stop.run(),
            Self::Reload(reload) => reload.run(),
            Self::Status(status) => status.run(),
            Self::Check(check) => check.run(),
            Self::Mapping(mapping) => mapping.run(),
            Self::Cert(cert) => cert.run(),
            Self::Agent(arguments) => agent::run(&arguments),
            Self::Demo(demo) => demo.run(),
        }
    }
}
