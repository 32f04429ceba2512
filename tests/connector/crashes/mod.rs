//! The daemon dies, the power fails, the disk breaks, at whatever moment: what a Controller was told is kept, and nothing
//! else.
//!
//! `kill`: kill -9 at random moments of a stream of changes, and at each call of the store. `power`: what a power cut could
//! leave of each prefix of those calls. `disk`: each of them fails, alone and with others. How to run more of them:
//! CONTRIBUTING.md, "Crashes".

mod changes;
mod disk;
mod disks;
mod kill;
mod power;
