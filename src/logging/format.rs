//! What a line of the log looks like: text with its time, what systemd's journal expects, or JSON.

use crate::clock;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;
use serde::Serialize;
use simplelog::{Config, ConfigBuilder, FormatItem, format_description};
use std::env;
use std::io;
use std::str::FromStr;
use std::time::Duration;
use time::OffsetDateTime;

/// A time of RFC 3339 in UTC, always as long as this: `2026-11-21T17:05:49.123Z`.
const TIME: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Now, as all logs have it.
fn clock() -> String {
    clock::utc().format(TIME).unwrap_or_default()
}

/// A time since the epoch, as all logs have it, up to its point.
pub(super) fn second(time: Duration) -> String {
    let mut text = (OffsetDateTime::UNIX_EPOCH + time).format(TIME).unwrap_or_default();
    text.truncate(text.find('.').map_or(0, |point| point + 1));
    text
}

/// What was asked for (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text, as whoever reads it wants it.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `TIME [LEVEL] words`.
    Text,
    /// `<PRIORITY>words`, sd-daemon(3): the journal has the time.
    Journal,
    /// `{"time":…,"level":…,"message":…}`.
    Json,
}

impl Format {
    pub(super) fn layout(self, is_file: bool) -> Layout {
        match self {
            Self::Json => Layout::Json,
            Self::Text if !is_file && is_journal() => Layout::Journal,
            Self::Text => Layout::Text,
        }
    }
}

/// Whether standard error is what systemd says that it has connected to the journal. The variable alone says nothing:
/// it is inherited by whatever is started with other output.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr()).is_ok_and(|it| stream == format!("{}:{}", it.st_dev, it.st_ino))
}

/// simplelog's part: what is not ours left out.
pub(super) fn config(level: LevelFilter) -> Config {
    let mut config = ConfigBuilder::new();
    config.set_thread_level(LevelFilter::Off).set_location_level(LevelFilter::Off).set_target_level(LevelFilter::Off);
    config.set_time_level(LevelFilter::Off).set_max_level(LevelFilter::Off);
    if level < LevelFilter::Trace {
        config.add_filter_allow_str(env!("CARGO_CRATE_NAME"));
    }
    config.build()
}

/// Puts a line into the form of its layout, and leaves the rest to `inner`.
pub(super) struct Formatter<L> {
    layout: Layout,
    inner: Box<L>,
}

impl<L: Log> Formatter<L> {
    pub fn new(layout: Layout, inner: Box<L>) -> Self {
        Self { layout, inner }
    }
}

impl<L: Log> Log for Formatter<L> {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let with = |line: std::fmt::Arguments| {
            self.inner.log(&Record::builder().metadata(record.metadata().clone()).args(line).build());
        };
        match self.layout {
            Layout::Text => with(format_args!("{} [{}] {}", clock(), record.level(), record.args())),
            Layout::Journal => with(format_args!("<{}>{}", priority(record.level()), record.args())),
            Layout::Json => with(format_args!("{}", json(record))),
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// syslog's priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn json(record: &Record) -> String {
    #[derive(Serialize)]
    struct Line {
        time: String,
        level: String,
        message: String,
    }
    let level = record.level().as_str().to_lowercase();
    let line = Line { time: clock(), level, message: record.args().to_string() };
    serde_json::to_string(&line).expect("strings only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use simplelog::WriteLogger;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of a warning of `target`.
    fn line(layout: Layout, level: LevelFilter, target: &str) -> String {
        let page = Page::default();
        let logger = Formatter::new(layout, WriteLogger::new(level, config(level), page.clone()));
        let words = "a \"word\"";
        logger.log(&Record::builder().level(Level::Warn).target(target).args(format_args!("{words}")).build());
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const OURS: &str = "iofog_connector::relay";

    #[test]
    fn text_has_a_time_of_fixed_width() {
        let line = line(Layout::Text, LevelFilter::Info, OURS);
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!((time.len(), time.as_bytes()[19], time.as_bytes()[23]), (24, b'.', b'Z'), "{line}");
        assert_eq!(rest, "[WARN] a \"word\"\n");
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        assert_eq!(line(Layout::Journal, LevelFilter::Info, OURS), "<4>a \"word\"\n");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let line = line(Layout::Json, LevelFilter::Info, OURS);
        let value: serde_json::Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&value["level"], &value["message"]), (&"warn".into(), &"a \"word\"".into()));
        assert_eq!(value["time"].as_str().map(str::len), Some(24));
    }

    #[test]
    fn what_libraries_say_is_only_for_trace() {
        for target in ["mio::poll", "tiny_http"] {
            assert_eq!(line(Layout::Text, LevelFilter::Debug, target), "");
            assert_ne!(line(Layout::Text, LevelFilter::Trace, target), "");
        }
    }
}
