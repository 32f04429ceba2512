//! What the command line takes for the daemon's answer.

use super::assert_is_readable;
use crate::cli::client::{is_whole, split};

pub fn body(bytes: &[u8]) {
    let mut whole = None;
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 16).chain([bytes.len()]) {
        let beginning = &bytes[..end];
        let answer = split(beginning);
        assert_eq!(is_whole(beginning), answer.is_ok());
        match (answer, whole) {
            (Ok(answer), None) => whole = Some(answer),
            // What comes behind an answer does not change it.
            (answer, Some(whole)) => assert_eq!(answer, Ok(whole)),
            (Err(problem), None) => assert_is_readable(&problem),
        }
    }
}
