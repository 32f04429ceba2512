//! The log: one line an event, to standard error or to a file; and the access log, one line a session, to a file of its
//! own.
//!
//! Lines are formatted where the event happens and written by a thread of their own, so that neither a
//! full disk nor a reader that sleeps stops the event loop. What cannot be written is counted, and the
//! count is logged as soon as something can be written again.

mod access;
mod format;
mod queue;
mod writer;

pub use access::{AccessLog, Field, text};
pub use format::Format;
use format::{Formatter, config};
use log::LevelFilter;
pub use queue::{LOGS, Logging, Which, lost};
use simplelog::WriteLogger;
use std::io;
use std::path::Path;
use writer::Writer;
pub use writer::can_be_opened;

/// Sets up the log of this process: events up to `level`, to the end of `file` or, without one, to
/// standard error. Call `log::logger().flush()` before the process exits.
///
/// # Errors
/// The file cannot be opened, or there is a log already.
pub fn start(level: LevelFilter, format: Format, file: Option<&Path>) -> io::Result<Logging> {
    let (logging, sink) = queue::pipe(Writer::new(file)?, Which::Log)?;
    let layout = format.layout(file.is_some());
    let logger = Formatter::new(layout, WriteLogger::new(level, config(level), sink));
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(logging)
}
