//! iofog-connector: a relay for edge computing.
//!
//! Fog nodes sit behind NAT; their agents dial out to this daemon, and a Controller tells it over
//! HTTP(S) which ports to open and whom to join. `docs/protocol.md` is the contract.
//!
//! Lower floors know nothing of higher ones:
//!
//! | floor | modules |
//! |---|---|
//! | what a daemon is told | [`layout`], [`config`], [`cidr`], [`mapping`], [`store`], [`ports`], [`secret`], [`limits`] |
//! | what a daemon says | [`logging`], [`failure`] |
//! | one socket, TLS or not | [`net`] |
//! | the event loop | [`relay`] |
//! | the control thread | [`control`] |
//! | putting it together | [`daemon`], [`logging`] |
//! | the other end of the wire | [`agent`] |
//! | the command line | [`cli`], [`exit`] |

pub mod agent;
pub mod cidr;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
mod descriptors;
pub mod exit;
pub mod failure;
pub mod files;
pub mod layout;
pub mod limits;
pub mod logging;
pub mod mapping;
pub mod net;
pub mod ports;
pub mod relay;
pub mod secret;
pub mod store;
mod throttle;

#[cfg(test)]
mod testing;
