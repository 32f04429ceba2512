//! Version 2 of what agents and the Connector say to each other: frames (docs/protocol.md, section 10). No I/O.
//!
//! | file | idea |
//! |---|---|
//! | `hello` | how both sides find out that the other one speaks it |
//! | `frame` | headers, and the frames that carry no payload |
//! | `open` | what an agent is told of a user |
//! | `channel` | one connection: one session after the other, and what may be said when |

pub mod channel;
pub mod frame;
pub mod hello;
pub mod open;

#[cfg(test)]
mod tests;
