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
/// Settings, certificates, keys, tokens: each file, bytes.
pub const CONFIG_FILE: u64 = 1024 * 1024;
/// `configs.json`, bytes: more than 32,767 mappings, two ports each, can come to.
pub const STORE_FILE: u64 = 64 * 1024 * 1024;
/// Requests that one write of `configs.json` may serve.
pub const BATCH: usize = 64;
/// Pairs of ports that are tried for one new mapping before it is refused.
pub const BIND_TRIES: usize = 64;
/// A longer answer is written by a thread of its own, bytes: what a socket may not take at once.
pub const ANSWER_AT_ONCE: usize = 64 * 1024;
/// So many longer answers may be on their way at once; who asks for one more is told to try again.
pub const LONG_ANSWERS: usize = 4;
/// Callers of a direct entry that wait for their peer; one more pushes out the oldest.
pub const DIRECT_CALLERS: usize = 256;
/// What such a caller may say of itself, bytes.
pub const DIRECT_CALLER: usize = 16 * 1024;
/// How long such a caller waits for its peer.
pub const DIRECT_WAIT: Duration = Duration::from_secs(600);
/// What a peer may say to the broker, bytes.
pub const BROKER_REQUEST: usize = 16 * 1024;
/// A peer has so long to say it.
pub const BROKER_REQUEST_TIME: Duration = Duration::from_secs(10);
/// Connections at the broker that have not said it yet; one more pushes out the oldest.
pub const BROKER_STRANGERS: usize = 64;
/// Peers that wait for another one; one more pushes out the oldest.
pub const BROKER_WAITING: usize = 256;
/// How long a peer waits for the other one.
pub const BROKER_WAIT: Duration = Duration::from_secs(600);
/// Introduced peers that have not closed yet; one more pushes out the oldest.
pub const BROKER_INTRODUCED: usize = 256;
/// An introduced peer has so long to punch its hole while the connection keeps its port open at the NAT.
pub const BROKER_PUNCHING: Duration = Duration::from_secs(60);
/// Refused addresses that the API remembers, so that each has a line a second in the log and no more.
pub const REFUSED_ADDRESSES: usize = 256;
/// Time from a request's first byte to its last.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// An API connection without a request is closed after this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// So many wrong passcodes from one address at one port ...
pub const BRAKE_FAILURES: usize = 5;
/// ... within this time ...
pub const BRAKE_WINDOW: Duration = Duration::from_secs(10);
/// ... and its next connections are taken this far apart.
pub const BRAKE_PAUSE: Duration = Duration::from_secs(1);
/// Addresses that the brake of one port remembers.
pub const BRAKE_ADDRESSES: usize = 256;
/// Heartbeats of one agent that may wait for their answer; more are not answered.
pub const OWED_BEATS: u8 = 64;
/// A user has closed its sending side: the session ends when the agent has been silent for so long ...
pub const HALF_CLOSED: Duration = Duration::from_secs(10);
/// ... or for so long if another user waits for an agent.
pub const HALF_CLOSED_CONTENDED: Duration = Duration::from_millis(200);
/// What is left of a session is delivered as long as the reader takes something within this time.
pub const DELIVERY: Duration = Duration::from_secs(60);
/// After our FIN the peer has so long to send its own; an early close would make the kernel reset the connection.
pub const LINGER: Duration = Duration::from_secs(5);
/// ... and so many bytes that it still sends are thrown away meanwhile.
pub const LINGER_BYTES: usize = 256 * 1024;
/// Without TLS an agent has so long to read `AUTHORIZED` before anything may follow it: there are no records.
pub const WELCOME: Duration = Duration::from_millis(50);
/// At the end of the daemon, what is in flight is delivered for so long.
pub const LAST_WORDS: Duration = Duration::from_secs(2);
/// When all relay buffers are in use, a session whose reader has taken nothing for so long is ended.
pub const STALLED: Duration = Duration::from_secs(10);
/// Connections that are accepted at one port before the others have their turn, and before one more may push out
/// a connection that has not had its own yet.
pub const ACCEPTS: usize = 8;
/// Relay buffers by default: as many as connections, but no more than these.
pub const BUFFERS: usize = 1024;

/// The agent: a connect that is not answered is given up after this, and the next address is tried.
pub const DIAL: Duration = Duration::from_secs(5);
/// The agent: connections that are on their way to being authorized at once. Below [`STRANGERS`] by far.
pub const UNDERWAY: usize = 16;
/// The agent: the shortest pause before a failed connection is tried again ...
pub const RETRY_SHORTEST: Duration = Duration::from_millis(100);
/// ... and the longest, which doubling ends at.
pub const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// The agent: an authorized connection that lived so long was worth having; its place is tried again at once.
pub const PROVED: Duration = Duration::from_secs(10);
/// The agent: the local service must be connected after this, looking up its name included.
pub const SUMMON: Duration = Duration::from_secs(10);
/// The agent: over plain TCP payload waits so long for the answer to a heartbeat that was sent before it.
pub const BEAT_HOLD: Duration = Duration::from_secs(1);
/// A tunnel's listening end calls the other one this often ...
pub const CALL_AGAIN: Duration = Duration::from_millis(200);
/// ... and gives up after this.
pub const CALL: Duration = Duration::from_secs(10);
/// A tunnel's clients wait so long for a free connection.
pub const WAIT_FOR_LINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    /// Every constant of this file has its line in docs/limits.md.
    #[test]
    fn every_limit_is_documented() {
        let documentation = include_str!("../docs/limits.md");
        let constants = include_str!("limits.rs").lines().filter_map(|line| line.strip_prefix("pub const "));
        let names: Vec<&str> = constants.filter_map(|rest| rest.split(':').next()).collect();
        assert!(names.len() > 40);
        let missing: Vec<&&str> =
            names.iter().filter(|name| !documentation.contains(&format!("| `{name}` |"))).collect();
        assert!(missing.is_empty(), "{missing:?} have no line in docs/limits.md");
    }
}
