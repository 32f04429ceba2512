//! What the tests stand on: a daemon in a temporary folder, a Controller, agents and users.
//!
//! No test sleeps to let things settle: it waits for a condition with a deadline ([`wait_until`]), or, where
//! something must NOT happen, listens for a stated time and says so.

mod agent_program;
mod binary;
mod certificates;
mod command_line;
mod controller;
mod cutter;
mod daemon;
mod distance;
mod faults;
pub mod frames;
mod mappings;
mod metrics;
mod payload;
mod peer;
mod played;
mod ports;
mod process;
mod random;
mod recorded;
mod service;
mod talk;
mod traffic;

pub use agent_program::{AgentProgram, Listed};
pub use binary::BINARY;
pub use certificates::{Authority, Certificate, chain_of_two, test_certificate};
pub use command_line::{command, command_within};
pub use controller::{Answer, Controller, form, post, request};
pub use cutter::{Cut, Cutter};
pub use daemon::{
    Daemon, Mode, Setup, Version, for_both_modes, for_both_versions, in_both_modes, in_both_versions,
    in_both_versions_plain,
};
pub use distance::Distance;
pub use faults::{Faults, Field, KILL, SHORT, VANISH};
pub use mappings::{Mapping, join, private_mapping, public_mapping};
pub use metrics::Metrics;
pub use payload::Payload;
pub use peer::{Dial, End, Heard, Peer};
pub use played::{Greeting, PlayedConnector};
pub use ports::PortBlock;
pub use random::{Random, number, seed};
pub use recorded::{Exchange, recorded};
pub use service::Service;
pub use talk::Talk;
pub use traffic::{StopAtLast, beat, call, ping, visit};

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that should take no time at all: long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to listen before concluding that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(400);

/// Waits until `holds`, and fails the test with `what` if that takes longer than `within`.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {within:?} in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
