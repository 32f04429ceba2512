//! What the command line takes for the daemon's answer.

use super::assert_is_readable;
use crate::cli::client::parse;

pub fn body(bytes: &[u8]) {
    let mut whole = None;
    for end in (0..bytes.len()).step_by(1 + bytes.len() / 16).chain([bytes.len()]) {
        let beginning = &bytes[..end];
        match (parse(beginning), whole) {
            (Ok(answer), None) => whole = answer,
            // What comes behind an answer does not change it.
            (answer, Some(whole)) => assert_eq!(answer, Ok(Some(whole))),
            (Err(problem), None) => assert_is_readable(&problem),
        }
    }
}
