//! Takes the chunks off a body.

use super::head::{expect_headers, find_end, find_line_end};
use super::{body_too_large, malformed};
use crate::limits::{REQUEST_BODY, REQUEST_HEAD};
use crate::relay::api::refusal::{Refusal, Status};

/// A chunk's size and extensions, bytes. Sizes need a few, and nobody sends extensions.
const SIZE_LINE: usize = 256;

/// Decodes one body, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    body: Vec<u8>,
    stage: Stage,
}

/// What comes next.
#[derive(Debug, Default)]
enum Stage {
    /// A line with a chunk's size.
    #[default]
    Size,
    /// So many bytes of the chunk, and the line end behind it.
    Data(usize),
    /// Header lines behind the last chunk, which are dropped. So many of their bytes have been looked at.
    Trailers {
        seen: usize,
    },
    Done,
}

impl Decoder {
    /// Takes from the front of `input` what it can and says how much that was.
    pub fn decode(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut at = 0;
        while let Some(used) = self.step(&input[at..])? {
            at += used;
        }
        Ok(at)
    }

    /// The body, once it is complete.
    pub fn take_body(&mut self) -> Option<Vec<u8>> {
        matches!(self.stage, Stage::Done).then(|| std::mem::take(&mut self.body))
    }

    #[cfg(any(test, fuzzing))]
    pub fn held(&self) -> usize {
        self.body.len()
    }

    /// One stage: how many bytes it took, or `None` if it needs more than there are.
    fn step(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        match self.stage {
            Stage::Size => self.size(input),
            Stage::Data(0) if input.len() < 2 => Ok(None),
            Stage::Data(0) if input.starts_with(b"\r\n") => {
                self.stage = Stage::Size;
                Ok(Some(2))
            }
            Stage::Data(0) => Err(malformed("a chunk is longer than it says")),
            Stage::Data(left) => {
                let used = left.min(input.len());
                self.body.extend_from_slice(&input[..used]);
                self.stage = Stage::Data(left - used);
                Ok((used > 0).then_some(used))
            }
            Stage::Trailers { seen } => self.trailers(input, seen),
            Stage::Done => Ok(None),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        let no_size = || malformed("a chunk's size is no hexadecimal number");
        let window = &input[..input.len().min(SIZE_LINE)];
        let Some(end) = find_line_end(window, 0)? else {
            return if window.len() == SIZE_LINE { Err(no_size()) } else { Ok(None) };
        };
        // Of extensions none is known, and all are ignored.
        let line = &window[..end];
        let digits = match line.iter().position(|byte| *byte == b';') {
            Some(at) => line[..at].trim_ascii_end(),
            None => line,
        };
        let size = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = size.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(no_size)?;
        self.stage = match size {
            0 => Stage::Trailers { seen: 0 },
            _ if size > (REQUEST_BODY - self.body.len()) as u64 => return Err(body_too_large()),
            _ => Stage::Data(size as usize),
        };
        Ok(Some(end + 2))
    }

    fn trailers(&mut self, input: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
        let end = find_end(input, seen)?;
        if end.unwrap_or(input.len()) > REQUEST_HEAD {
            return Err(Refusal::new(Status::HEAD_TOO_LARGE, format!("trailers are longer than {REQUEST_HEAD} bytes")));
        }
        self.stage = match end {
            None => Stage::Trailers { seen: input.len() },
            Some(end) => {
                expect_headers(&input[..end])?;
                Stage::Done
            }
        };
        Ok(end)
    }
}
