//! Exit statuses of the program, as sysexits.h and the init scripts' conventions have them (docs/operations.md,
//! "Exit statuses").

/// All is well; `status`: the daemon runs.
pub const OK: u8 = 0;
/// `status`: unknown, or stopping.
pub const UNKNOWN: u8 = 1;
/// `status`: the daemon does not run.
pub const STOPPED: u8 = 3;
/// The command line is wrong (EX_USAGE).
pub const USAGE: u8 = 64;
/// There is no such mapping, or the daemon refused what was asked (EX_DATAERR).
pub const REFUSED: u8 = 65;
/// There is no such user (EX_NOUSER).
pub const NO_USER: u8 = 67;
/// The daemon does not answer, or the API port is taken (EX_UNAVAILABLE).
pub const UNAVAILABLE: u8 = 69;
/// An error in the program itself: a thread has died (EX_SOFTWARE).
pub const SOFTWARE: u8 = 70;
/// The system refuses something that every daemon needs (EX_OSERR).
pub const SYSTEM: u8 = 71;
/// A file cannot be made, or is there already (EX_CANTCREAT).
pub const CANNOT_CREATE: u8 = 73;
/// Standard output cannot be written (EX_IOERR).
pub const IO_ERROR: u8 = 74;
/// The daemon has not ended in time (EX_TEMPFAIL).
pub const STILL_THERE: u8 = 75;
/// Not permitted (EX_NOPERM).
pub const NOT_PERMITTED: u8 = 77;
/// Settings, certificates, mappings or ports are not as they should be (EX_CONFIG).
pub const CONFIG: u8 = 78;
