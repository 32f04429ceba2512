//! The access log: one line a session, to a file of its own.
//!
//! A line is built where it waits to be handed over: a session costs no allocation, and no more than its digits.

use super::format::{Format, second};
use super::queue::{Logging, Sink, Which, pipe};
use super::writer::Writer;
use crate::clock;
use crate::limits::ACCESS_LOG_PIECE;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Bytes of a line, about.
const LINE: usize = 320;

/// Whole lines, handed over without ever waiting.
///
/// Not each by itself: to wake the thread that writes costs more than to build a line.
pub struct AccessLog {
    sink: Sink,
    /// Lines that are gathered in the sink.
    lines: usize,
    /// Lines are JSON objects.
    is_json: bool,
    clock: Clock,
}

/// The value of a field.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// There is none.
    Absent,
    Word(&'a str),
    Address(SocketAddr),
    Bytes(u64),
    Seconds(Duration),
}

impl<'a> From<Option<&'a str>> for Field<'a> {
    fn from(word: Option<&'a str>) -> Self {
        word.map_or(Self::Absent, Self::Word)
    }
}

impl AccessLog {
    /// To the end of `file`. The other half is for whoever rotates or ends it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn start(file: &Path, format: Format) -> io::Result<(Self, Logging)> {
        let (logging, sink) = pipe(Writer::new(Some(file))?, Which::Access)?;
        Ok((Self { sink, lines: 0, is_json: format == Format::Json, clock: Clock::default() }, logging))
    }

    /// One line, of the time and these fields. It is written at the next [`AccessLog::hand_over`], or when enough have
    /// gathered.
    pub fn write<'a>(&mut self, fields: impl IntoIterator<Item = (&'static str, Field<'a>)>) {
        let line = &mut self.sink.line;
        let now = clock::since_1970();
        if self.is_json {
            line.extend_from_slice(b"{\"time\":\"");
            self.clock.push(now, line);
            line.push(b'"');
            fields.into_iter().for_each(|(key, field)| push_json(line, key, field));
            line.push(b'}');
        } else {
            self.clock.push(now, line);
            push_text(line, fields);
        }
        line.push(b'\n');
        self.lines += 1;
        if line.len() >= ACCESS_LOG_PIECE {
            self.hand_over();
        }
    }

    /// Has the lines written that have gathered. To be called every now and then.
    pub fn hand_over(&mut self) {
        if self.lines > 0 {
            let text = std::mem::take(&mut self.sink.line);
            self.sink.hand_over(text, std::mem::take(&mut self.lines));
        }
    }
}

/// The same fields for the log.
pub fn text<'a>(fields: impl IntoIterator<Item = (&'static str, Field<'a>)>) -> String {
    let mut line = Vec::with_capacity(LINE);
    push_text(&mut line, fields);
    String::from_utf8_lossy(&line).into_owned()
}

/// A time is put together once a second; between, its digits change.
#[derive(Default)]
struct Clock {
    second: u64,
    /// All of it up to the point.
    text: String,
}

impl Clock {
    fn push(&mut self, now: Duration, line: &mut Vec<u8>) {
        if self.second != now.as_secs() || self.text.is_empty() {
            (self.second, self.text) = (now.as_secs(), second(now));
        }
        line.extend_from_slice(self.text.as_bytes());
        push_thousandths(line, now.subsec_millis());
        line.push(b'Z');
    }
}

/// ` key=value` each; `-` stands for what there is none of. A value has no white space, whatever an id may be.
fn push_text<'a>(line: &mut Vec<u8>, fields: impl IntoIterator<Item = (&'static str, Field<'a>)>) {
    for (key, field) in fields {
        line.push(b' ');
        line.extend_from_slice(key.as_bytes());
        line.push(b'=');
        match field {
            Field::Absent => line.push(b'-'),
            Field::Word(word) => push_word(line, word),
            other => push_value(line, other),
        }
    }
}

fn push_json(line: &mut Vec<u8>, key: &str, field: Field<'_>) {
    if let Field::Absent = field {
        return;
    }
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(b"\":");
    match field {
        // Neither a string nor a Vec can fail.
        Field::Word(word) => drop(serde_json::to_writer(line, word)),
        Field::Address(_) => {
            line.push(b'"');
            push_value(line, field);
            line.push(b'"');
        }
        other => push_value(line, other),
    }
}

fn push_word(line: &mut Vec<u8>, word: &str) {
    let is_bad = |letter: char| letter.is_whitespace() || letter.is_control();
    if word.bytes().all(|byte| byte.is_ascii_graphic()) {
        line.extend_from_slice(word.as_bytes());
    } else {
        line.extend_from_slice(word.replace(is_bad, "_").as_bytes());
    }
}

/// What looks the same in text and in JSON.
fn push_value(line: &mut Vec<u8>, field: Field<'_>) {
    match field {
        Field::Address(SocketAddr::V4(address)) => {
            for (octet, end) in address.ip().octets().into_iter().zip(*b"...:") {
                push_number(line, octet.into());
                line.push(end);
            }
            push_number(line, address.port().into());
        }
        // Writing to a Vec cannot fail.
        Field::Address(address) => drop(write!(line, "{address}")),
        Field::Bytes(bytes) => push_number(line, bytes),
        Field::Seconds(time) => {
            // To the nearest.
            let time = time + Duration::from_micros(500);
            push_number(line, time.as_secs());
            line.push(b'.');
            push_thousandths(line, time.subsec_millis());
        }
        Field::Absent | Field::Word(_) => {}
    }
}

fn push_number(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_thousandths(line: &mut Vec<u8>, number: u32) {
    let digit = |tens: u32| b'0' + (number / tens % 10) as u8;
    line.extend([digit(100), digit(10), digit(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fields() -> [(&'static str, Field<'static>); 7] {
        [
            ("mapping", Field::Word("an\nid")),
            ("name", Field::Absent),
            ("agent", Field::Address(([192, 0, 2, 10], 4000).into())),
            ("user", Field::Address("[2001:db8::1]:5000".parse().unwrap())),
            ("bytesport2", Field::Bytes(u64::MAX)),
            ("duration", Field::Seconds(Duration::from_micros(1_234_567))),
            ("waited", Field::Seconds(Duration::from_micros(5_499))),
        ]
    }

    #[test]
    fn text_has_a_word_for_each_field() {
        let expected = " mapping=an_id name=- agent=192.0.2.10:4000 user=[2001:db8::1]:5000 \
                        bytesport2=18446744073709551615 duration=1.235 waited=0.005";
        assert_eq!(text(fields()), expected);
    }

    #[test]
    fn a_line_of_json_is_an_object_without_what_is_not_known() {
        let mut line = b"{\"time\":\"\"".to_vec();
        fields().into_iter().for_each(|(key, field)| push_json(&mut line, key, field));
        line.push(b'}');
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["duration"], &value["bytesport2"]), (&1.235.into(), &u64::MAX.into()));
        assert_eq!((&value["mapping"], &value["agent"]), (&"an\nid".into(), &"192.0.2.10:4000".into()));
        assert!(value.get("name").is_none());
    }

    #[test]
    fn the_time_goes_on_with_its_second() {
        let mut clock = Clock::default();
        let mut at = |millis| {
            let mut line = Vec::new();
            clock.push(Duration::from_millis(millis), &mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(at(1_795_280_749_007), "2026-11-21T17:05:49.007Z");
        assert_eq!(at(1_795_280_749_999), "2026-11-21T17:05:49.999Z");
        assert_eq!(at(1_795_280_750_120), "2026-11-21T17:05:50.120Z");
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    }
}
