//! `agent`: the other end of the wire, in the foreground. What it does: see [`crate::agent`].

use super::output::say;
use super::{Failure, Outcome};
use crate::agent;
use crate::agent::arguments::{Arguments, Command};
use crate::{exit, logging};
use log::error;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    match arguments.command {
        Some(Command::Check(_)) => check(arguments),
        None => serve(arguments),
    }
}

fn serve(arguments: &Arguments) -> Outcome {
    start_log(arguments)?;
    let ended = agent::run(arguments);
    if let Err(e) = &ended {
        error!("{e}");
    }
    log::logger().flush();
    Ok(ended.map_or_else(|e| e.status(), |()| exit::OK))
}

fn check(arguments: &Arguments) -> Outcome {
    start_log(arguments)?;
    let services = agent::check(arguments).map_err(|e| Failure::new(e.status(), e))?;
    log::logger().flush();
    let what = arguments.config().map_or("the options".to_owned(), |file| file.display().to_string());
    say(format!("{what}: good, {services} {}", if services == 1 { "service" } else { "services" }));
    Ok(exit::OK)
}

fn start_log(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |e| Failure::new(exit::SYSTEM, format!("the log could not be set up: {e}"));
    logging::start(arguments.log_level, None).map(drop).map_err(failed)
}
