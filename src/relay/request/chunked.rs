//! Takes the chunks off a body.

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
    /// Header lines behind the last chunk, which are dropped; so many bytes of them have gone by.
    Trailers(usize),
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
            Stage::Trailers(before) => self.trailer(input, before),
            Stage::Done => Ok(None),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        let line = &input[..input.len().min(SIZE_LINE)];
        let no_size = || malformed("a chunk's size is no hexadecimal number");
        // httparse takes an empty line for a size of 0.
        if line.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
            return Err(no_size());
        }
        match httparse::parse_chunk_size(line) {
            Ok(httparse::Status::Partial) if line.len() == SIZE_LINE => Err(no_size()),
            Ok(httparse::Status::Partial) => Ok(None),
            Ok(httparse::Status::Complete((used, 0))) => {
                self.stage = Stage::Trailers(0);
                Ok(Some(used))
            }
            Ok(httparse::Status::Complete((used, size))) if size <= (REQUEST_BODY - self.body.len()) as u64 => {
                self.stage = Stage::Data(size as usize);
                Ok(Some(used))
            }
            Ok(httparse::Status::Complete(_)) => Err(body_too_large()),
            Err(_) => Err(no_size()),
        }
    }

    fn trailer(&mut self, input: &[u8], before: usize) -> Result<Option<usize>, Refusal> {
        let end = input.windows(2).position(|pair| pair == b"\r\n");
        let line = end.map_or(input.len(), |at| at + 2);
        if before + line > REQUEST_HEAD {
            return Err(Refusal::new(Status::HeadTooLarge, format!("trailers are longer than {REQUEST_HEAD} bytes")));
        }
        self.stage = match end {
            None => return Ok(None),
            Some(0) => Stage::Done,
            Some(_) => Stage::Trailers(before + line),
        };
        Ok(Some(line))
    }
}
