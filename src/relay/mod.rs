//! The event loop and everything it owns.

pub mod command;
