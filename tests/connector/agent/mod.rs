//! `iofog-connector agent`: the program at the other end of the wire.
//!
//! `crate::agents` is about the wire protocol as the daemon speaks it to any agent; this is about our own one.

mod adding_up;
pub mod frames;
mod monitoring;
mod negotiation;
mod public;
mod services;
mod settings;
mod status;
mod staying;
mod trust;
mod tunnel;
mod way_out;

use crate::harness::Daemon;

/// A port for the listening end of a tunnel, at the far end of the block from those that mappings get.
pub fn listening_port(daemon: &Daemon) -> u16 {
    daemon.ports.mappings().1
}
