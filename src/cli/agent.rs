//! `agent`: the other end of the wire, in the foreground. What it does: see [`crate::agent`].

use super::{Failure, Outcome};
use crate::agent;
use crate::agent::arguments::Arguments;
use crate::logging::Format;
use crate::{exit, logging};
use log::error;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let failed = |e| Failure::new(exit::SYSTEM, format!("the log could not be set up: {e}"));
    logging::start(arguments.log_level, Format::Text, None).map_err(failed)?;
    let ended = agent::run(arguments);
    if let Err(e) = &ended {
        error!("{e}");
    }
    log::logger().flush();
    Ok(ended.map_or_else(|e| e.status(), |()| exit::OK))
}
