//! Drives the real binary over real sockets, against docs/protocol.md.
//!
//! One test program, so that tests that wait for a deadline of the daemon do so beside the others. Nothing here
//! uses the daemon's own code: the harness speaks HTTP, TLS and the agents' protocol by itself.

mod agent;
mod agents;
mod api;
mod broker;
mod bulk;
mod golden;
mod harness;
mod hostile;
mod lifecycle;
mod private;
mod public;
mod settings;
mod strangers;
