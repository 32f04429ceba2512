//! `iofog-connector agent`: the other end of the wire.

use super::{Failure, Outcome};
use crate::agent::{self, arguments::Arguments};
use crate::{exit, logging};

/// Serves until it is told to stop.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let failed = |e| Failure::new(exit::SYSTEM, format!("the log cannot be set up: {e}"));
    logging::start(arguments.log_level, None).map_err(failed)?;
    let ended = agent::run(arguments);
    log::logger().flush();
    ended.map(|()| exit::OK).map_err(|e| Failure::new(e.status(), e))
}
