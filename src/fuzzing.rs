//! What reads bytes from outside, driven by any bytes at all.
//!
//! A target is a function that takes bytes and panics when something is wrong. Each is called in two ways: by
//! libFuzzer (`fuzz/`, see CONTRIBUTING.md), which looks for inputs that reach new code, and by `cargo test`, over
//! the inputs that were kept (`fuzz/corpus/`) and mutations of them. No part of this is in the program.

pub mod addresses;
pub mod agent_settings;
pub mod broker_request;
pub mod certificate;
pub mod config;
pub mod configs_json;
pub mod form;
pub mod frames;
pub mod http_answer;
pub mod http_request;
pub mod pem;
pub mod proxy_protocol;
mod tls;
pub mod tls_handshake;
pub mod tls_records;
pub mod tunnel;
pub mod wire;

use crate::testing::Random;

/// Does something with the bytes, and panics if that goes wrong.
pub type Body = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("addresses", addresses::body),
    ("agent_settings", agent_settings::body),
    ("broker_request", broker_request::body),
    ("certificate", certificate::body),
    ("config", config::body),
    ("configs_json", configs_json::body),
    ("form", form::body),
    ("frames", frames::body),
    ("http_answer", http_answer::body),
    ("http_request", http_request::body),
    ("pem", pem::body),
    ("proxy_protocol", proxy_protocol::body),
    ("tls_handshake", tls_handshake::body),
    ("tls_records", tls_records::body),
    ("tunnel", tunnel::body),
    ("wire", wire::body),
];

/// An error's text is for people who read logs: one line, and not endless.
fn assert_is_readable(message: &str) {
    assert!(!message.is_empty() && message.len() < 64 * 1024, "{} bytes: {message:?}", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}

/// Cuts the bytes as a network might: into small pieces or large ones, the same for the same bytes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let mut random = Random::new(sum);
    let longest = [1, 3, 20, 1000][random.below(4)];
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(longest)));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests;
