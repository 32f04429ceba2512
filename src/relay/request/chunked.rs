//! Takes the chunks off a body.

use super::head::{expect_header, find_line_end};
use super::{body_too_large, malformed};
use crate::limits::{REQUEST_BODY, REQUEST_HEAD};
use crate::relay::refusal::{Refusal, Status};

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
    /// So many bytes of the chunk.
    Data(usize),
    /// The line end behind a chunk.
    DataEnd,
    /// Header lines behind the last chunk, which are dropped. So many bytes of them have gone `before` this line, and so
    /// many of this line have been `seen`.
    Trailers {
        before: usize,
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
            Stage::Data(left) => {
                let used = left.min(input.len());
                if used == 0 {
                    return Ok(None);
                }
                self.body.extend_from_slice(&input[..used]);
                self.stage = if used == left { Stage::DataEnd } else { Stage::Data(left - used) };
                Ok(Some(used))
            }
            Stage::DataEnd if input.len() < 2 => Ok(None),
            Stage::DataEnd if input.starts_with(b"\r\n") => {
                self.stage = Stage::Size;
                Ok(Some(2))
            }
            Stage::DataEnd => Err(malformed("a chunk is longer than it says")),
            Stage::Trailers { before, seen } => self.trailer(input, before, seen),
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
            0 => Stage::Trailers { before: 0, seen: 0 },
            _ if size > (REQUEST_BODY - self.body.len()) as u64 => return Err(body_too_large()),
            _ => Stage::Data(size as usize),
        };
        Ok(Some(end + 2))
    }

    fn trailer(&mut self, input: &[u8], before: usize, seen: usize) -> Result<Option<usize>, Refusal> {
        let end = find_line_end(input, seen)?;
        let line = end.map_or(input.len(), |at| at + 2);
        if before + line > REQUEST_HEAD {
            return Err(Refusal::new(Status::HeadTooLarge, format!("trailers are longer than {REQUEST_HEAD} bytes")));
        }
        self.stage = match end {
            None => Stage::Trailers { before, seen: input.len() },
            Some(0) => Stage::Done,
            Some(at) => {
                expect_header(&input[..at])?;
                Stage::Trailers { before: before + line, seen: 0 }
            }
        };
        Ok(end.map(|_| line))
    }
}
