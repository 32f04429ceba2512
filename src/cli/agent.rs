//! `agent`: the other end of the wire, in the foreground. What it does: see [`crate::agent`].

mod status;

use super::output::{complain, say};
use super::{Failure, Outcome};
use crate::agent;
use crate::agent::arguments::{Arguments, Command};
use crate::exit;
use crate::logging::{self, Logging};
use crate::plural::counted;
use log::error;
use std::path::Path;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.command {
        Some(Command::Check(_)) => check(arguments),
        Some(Command::Status(status)) => status::run(status, arguments.socket.as_deref()),
        None => serve(arguments),
    }
}

fn serve(arguments: &Arguments) -> Outcome {
    arguments.log_file_is_its_own().map_err(|e| Failure::new(e.status(), e))?;
    let ended = agent::run(arguments, start_log(arguments, arguments.log_file.as_deref())?);
    if let Err(e) = &ended {
        error!("{e}");
        if arguments.log_file.is_some() {
            complain(e);
        }
    }
    log::logger().flush();
    Ok(ended.map_or_else(|e| e.status(), |()| exit::OK))
}

/// Warnings go to standard error, whatever else the log goes to.
fn check(arguments: &Arguments) -> Outcome {
    start_log(arguments, None)?;
    let services = agent::check(arguments).map_err(|e| Failure::new(e.status(), e))?;
    log::logger().flush();
    let what = arguments.config().map_or("the options".to_owned(), |file| file.display().to_string());
    say(format!("{what}: good, {}", counted(services, "service")));
    Ok(exit::OK)
}

fn start_log(arguments: &Arguments, file: Option<&Path>) -> Result<Logging, Failure> {
    logging::start(arguments.log_level, arguments.log_format, file).map_err(|e| match file {
        Some(file) => Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {e}", file.display())),
        None => Failure::new(exit::SYSTEM, format!("the log could not be set up: {e}")),
    })
}
