//! iofog-connector: a relay for edge computing.
//!
//! Fog nodes sit behind NAT; their agents dial out to this daemon, and a Controller tells it over
//! HTTP(S) which ports to open and whom to join. `docs/protocol.md` is the contract.
//!
//! Lower floors know nothing of higher ones:
//!
//! | floor | modules |
//! |---|---|
//! | what a daemon is told | [`layout`], [`config`], [`cidr`], [`mapping`], [`store`], [`ports`], [`json`], [`plural`], [`prometheus`], [`secret`], [`limits`], `network`, `fairness`, `bucket` |
//! | what a daemon says | [`logging`], [`failure`], [`crash`] |
//! | one socket, TLS or not | [`net`] |
//! | the event loop | [`relay`] |
//! | the control thread | [`control`] |
//! | putting it together | [`daemon`], [`logging`] |
//! | the other end of the wire | [`agent`] |
//! | the command line | [`cli`], [`exit`] |

pub mod agent;
mod bucket;
pub mod cidr;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crash;
pub mod daemon;
mod descriptors;
pub mod exit;
pub mod failure;
mod fairness;
pub mod files;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod json;
pub mod layout;
pub mod limits;
pub mod logging;
pub mod mapping;
pub mod net;
mod network;
pub mod plural;
pub mod ports;
pub mod prometheus;
pub mod relay;
pub mod secret;
pub mod store;
mod supervisor;
mod throttle;
pub mod wire;

#[cfg(any(test, fuzzing))]
mod testing;
