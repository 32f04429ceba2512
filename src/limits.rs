//! Every fixed limit of the daemon, with its reason. The documentation has a line for each (docs/limits.md).

use std::time::Duration;

/// A relay buffer: what one direction of a pipe may hold while its reader is not ready. Bytes.
pub const BUFFER: usize = 64 * 1024;
/// A stranger has so long to finish its TLS handshake and passcode.
pub const GREETING: Duration = Duration::from_secs(10);
/// Connections at one agent port that have not shown a passcode yet; one more pushes out the oldest.
pub const STRANGERS: usize = 64;
/// Users of one mapping that have not sent a byte yet; one more pushes out the oldest.
pub const SILENT_USERS: usize = 256;
/// How long a user may stay silent before its first byte.
pub const FIRST_BYTE: Duration = Duration::from_secs(60);
/// How long a user waits for a free agent connection.
pub const WAIT_FOR_AGENT: Duration = Duration::from_secs(5);
/// API connections at once; one more pushes out the one longest without a complete request.
pub const API_CONNECTIONS: usize = 32;
/// A request's body, bytes.
pub const REQUEST_BODY: usize = 64 * 1024;
/// A request's line and headers, bytes.
pub const REQUEST_HEAD: usize = 16 * 1024;
/// Requests that one write of `configs.json` may serve.
pub const BATCH: usize = 64;
/// Pairs of ports that are tried for one new mapping before it is refused.
pub const BIND_TRIES: usize = 64;
/// A longer answer is written by a thread of its own, bytes: what a socket may not take at once.
pub const ANSWER_AT_ONCE: usize = 64 * 1024;
/// Callers of a direct entry that wait for their peer; one more pushes out the oldest.
pub const DIRECT_CALLERS: usize = 256;
/// What such a caller may say of itself, bytes.
pub const DIRECT_CALLER: usize = 16 * 1024;
/// How long such a caller waits for its peer.
pub const DIRECT_WAIT: Duration = Duration::from_secs(600);
/// Refused addresses that the API remembers, so that each has a line a second in the log and no more.
pub const REFUSED_ADDRESSES: usize = 256;
/// Time from a request's first byte to its last.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// An API connection without a request is closed after this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
