//! The event loop and everything it owns.

pub mod command;
pub mod refusal;
pub mod request;
pub mod seal;
