//! Every fixed limit of the daemon, with its reason. The documentation has a line for each (docs/limits.md).

use std::time::Duration;

/// A relay buffer: what one direction of a pipe may hold while its reader is not ready. Bytes.
pub const BUFFER: usize = 64 * 1024;
/// Version 2 of the pipe protocol: payload of one frame that is accepted, bytes. With its header it fills a relay buffer.
pub const FRAME: u16 = (BUFFER - 4) as u16;
/// Version 2: a connection is closed if the other side does not confirm within this that a session is over, or does not
/// close it although both have said BYE.
pub const RESET_ANSWER: Duration = Duration::from_secs(10);
/// Version 2: connections that were asked for and have not come after this are asked for again.
pub const WANT_AGAIN: Duration = Duration::from_secs(5);
/// A stranger has so long to finish its TLS handshake and passcode.
pub const AUTHENTICATION: Duration = Duration::from_secs(10);
/// What a peer may send before its TLS handshake is done, bytes.
pub const HANDSHAKE_BYTES: usize = 64 * 1024;
/// A TLS handshake message in pieces is kept up to this size until it is complete, bytes ...
pub const HANDSHAKE_PIECES: usize = 4 * 1024;
/// ... and up to this one where the peer may show a certificate: at the API port and as an agent.
pub const HANDSHAKE_CHAIN: usize = 32 * 1024;
/// Connections at one agent port that have not shown a passcode yet; one more pushes out the oldest.
pub const UNAUTHENTICATED: usize = 64;
/// So many of them count as one for a network that has authorized agents at the port.
pub const UNAUTHENTICATED_OF_A_FLEET: usize = 32;
/// Users of one mapping that have not sent a byte yet; one more pushes out the oldest.
pub const SILENT_USERS: usize = 256;
/// How long a user may stay silent before its first byte.
pub const FIRST_BYTE: Duration = Duration::from_secs(60);
/// Users of one mapping that wait for a free agent connection, and clients of a tunnel that do; one more pushes out
/// the oldest.
pub const WAITING_USERS: usize = 256;
/// How long a user waits for a free agent connection.
pub const WAIT_FOR_AGENT: Duration = Duration::from_secs(5);
/// API connections at once; one more pushes out the one longest without a complete request.
pub const API_CONNECTIONS: usize = 32;
/// Connections that must remain possible however many ports are opened and however few files may be open.
pub const CONNECTIONS_LEFT: usize = 16;
/// API connections at once from addresses that are not in `controllers`; one more pushes out the oldest.
pub const API_UNLISTED: usize = 4;
/// So far apart such connections are taken when they come faster; the others are closed at once.
pub const API_UNLISTED_INTERVAL: Duration = Duration::from_millis(100);
/// Connections at once at the port of `metricslisten`; one more pushes out the oldest.
pub const MONITORS: usize = 8;
/// The event loop is healthy if it answers within this.
pub const HEALTHY: Duration = Duration::from_secs(1);
/// A request's body, bytes.
pub const REQUEST_BODY: usize = 64 * 1024;
/// A request's line and headers, bytes.
pub const REQUEST_HEAD: usize = 16 * 1024;
/// Settings, certificates, keys, tokens: each file, bytes.
pub const CONFIG_FILE: u64 = 1024 * 1024;
/// Bytes of the token that API requests carry: it must fit their head.
pub const TOKEN: usize = 4096;
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
/// Direct entries: each costs memory and a line of `configs.json`, and has no port that would bound their number.
pub const DIRECT_ENTRIES: usize = 1024;
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
pub const BROKER_UNAUTHENTICATED: usize = 64;
/// Peers that wait for another one; one more pushes out the oldest.
pub const BROKER_WAITING: usize = 256;
/// How long a peer waits for the other one.
pub const BROKER_WAIT: Duration = Duration::from_secs(600);
/// Introduced peers that have not closed yet; one more pushes out the oldest.
pub const BROKER_INTRODUCED: usize = 256;
/// An introduced peer has so long to punch its hole while the connection keeps its port open at the NAT.
pub const BROKER_PUNCHING: Duration = Duration::from_secs(60);
/// Log lines about single addresses and ports that may be written at once ...
pub const LOG_LINES: usize = 256;
/// ... and then one in this time: 86,400 a day, about 12 MB.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Lines of the access log are written when so many bytes have gathered, or once a second ...
pub const ACCESS_LOG_PIECE: usize = 16 * 1024;
/// ... and so many such pieces may wait for the disk.
pub const ACCESS_LOG_PIECES: usize = 64;
/// An answer that is taken more slowly than this, bytes a second, is broken off [`KEEP_ALIVE`] after it fell behind.
pub const ANSWER_RATE: u64 = 4 * 1024;
/// Time from a request's first byte to its last.
pub const REQUEST_TIME: Duration = Duration::from_secs(10);
/// An API connection without a request is closed after this.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A rejected connection is closed so much later for each failure of its network at that port ...
pub const REJECTION_STEP: Duration = Duration::from_secs(1);
/// ... and no later than this. The failures are forgotten at the same pace.
pub const REJECTION_LONGEST: Duration = Duration::from_secs(10);
/// Rejected connections that wait to be closed; one more pushes out the oldest.
pub const REJECTED: usize = 512;
/// Different wrong passcodes that one network may show to one port at once ...
pub const GUESSES: usize = 64;
/// ... and then one in this time. The same ones again are not counted.
pub const GUESS_INTERVAL: Duration = Duration::from_secs(1);
/// Connections that one network may begin at one port at once and leave without a passcode, or before the answer ...
pub const ABANDONED: u32 = 256;
/// ... and then one in this time: its next connections are taken that far apart ...
pub const ABANDONED_INTERVAL: Duration = Duration::from_millis(20);
/// ... and not at all if that means waiting for so long.
pub const ABANDONED_WAIT: Duration = Duration::from_millis(500);
/// Records of failures, one for a network and a port; when all are in use, those go that weigh least.
pub const RATE_LIMITED: usize = 1024;
/// Of these one network has so many; its failures at further ports share one more.
pub const RATE_LIMITED_PORTS: usize = 64;
/// An agent for which there is no place is closed after this.
pub const NO_PLACE: Duration = Duration::from_secs(1);
/// One in so many of `connections` is set aside for agents, and for networks with few connections.
pub const SET_ASIDE: usize = 16;
/// With all connections in use, one in so many of them is closed at once, so that the search for them costs little.
pub const EVICTED_AT_ONCE: usize = 64;
/// If there was nothing to close, the next search comes after this.
pub const EVICTION_PAUSE: Duration = Duration::from_millis(100);
/// Heartbeats of one agent that may wait for their answer; more are not answered.
pub const OWED_BEATS: u8 = 64;
/// A user has closed its sending side: the session ends when the agent has been silent for so long ...
pub const HALF_CLOSED: Duration = Duration::from_secs(10);
/// ... or for so long if another user waits for an agent.
pub const HALF_CLOSED_CONTENDED: Duration = Duration::from_millis(200);
/// What is left of a session is delivered as long as the reader takes something within this time.
pub const DELIVERY: Duration = Duration::from_secs(60);
/// After our FIN the peer has so long to send its own; an early close would make the kernel reset the connection ...
pub const LINGER: Duration = Duration::from_secs(5);
/// ... and so long if it still sends all the while, which is thrown away ...
pub const LINGER_LONGEST: Duration = Duration::from_secs(30);
/// ... of a Controller only so many bytes: what it had to say was too much already.
pub const LINGER_BYTES: usize = 256 * 1024;
/// Without TLS an agent has so long to read `AUTHORIZED` before anything may follow it: there are no records.
pub const WELCOME: Duration = Duration::from_millis(50);
/// An agent that has sent payload while it was free is not joined until it has been quiet for so long ...
pub const SETTLE: Duration = Duration::from_millis(250);
/// ... but on a private pipe, where it may be meant for a peer that is still to come, only this long after `AUTHORIZED`.
pub const SETTLE_PRIVATE: Duration = Duration::from_secs(2);
/// A session was ended while its agent may not have been done: the same goes at once for agents that are authorized
/// within this time.
pub const LEFTOVERS: Duration = Duration::from_secs(5);
/// What an agent sends within this time is taken for a whole answer if its user then closes properly.
pub const BURST: Duration = Duration::from_millis(10);
/// A joined agent is sent a heartbeat of its own accord this often, if it is told nothing else or held back.
pub const PROMPT: Duration = Duration::from_secs(15);
/// From the word to stop on, what is in flight is delivered for so long. The rest of 2 s is for closing and leaving.
pub const DRAIN_TIMEOUT: Duration = Duration::from_millis(1800);
/// When all relay buffers are in use, a session whose reader has taken nothing for so long is ended.
pub const STALLED: Duration = Duration::from_secs(10);
/// Connections that are accepted at one port before the others have their turn, and before one more may push out
/// a connection that has not had its own yet.
pub const ACCEPTS: usize = 8;
/// Buffers of the API, besides: one for each way through each of its connections, so that it never waits for one.
pub const API_BUFFERS: usize = 2 * (API_CONNECTIONS + MONITORS);
/// Relay buffers by default: as many as connections, but no more than these.
pub const BUFFERS: usize = 1024;

/// The agent: a connect that is not answered is given up after this, and the next address is tried.
pub const DIAL: Duration = Duration::from_secs(5);
/// The agent: an address that has not been connected to after this has the next one tried besides (RFC 8305).
pub const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// The agent: the Connector has so long to take the handshake and the passcode. Above [`AUTHENTICATION`] and
/// [`REJECTION_LONGEST`] together, so that a rejection is heard, however late.
pub const AUTHORIZATION: Duration = Duration::from_secs(25);
/// The agent: connections that are on their way to being authorized at once. Below [`UNAUTHENTICATED`] by far.
pub const UNDERWAY: usize = 16;
/// The agent: the same of all services together, so that a thousand handshakes do not need their memory at once.
pub const UNDERWAY_OF_ALL: usize = 32;
/// The agent: names that are looked up at once; further ones wait.
pub const LOOKUPS: usize = 16;
/// The agent: what a proxy may answer, bytes.
pub const PROXY_ANSWER: usize = 8 * 1024;
/// The agent: who asks for its status has so long to take the answer.
pub const STATUS_ANSWER: Duration = Duration::from_secs(2);
/// The agent: who asks for metrics has so long to ask, and to take the answer.
pub const AGENT_REQUEST_TIME: Duration = Duration::from_secs(2);
/// The agent: services of one process.
pub const SERVICES: usize = 4096;
/// The agent: the pause after a failure that nobody but this machine has a part in, such as a lack of descriptors.
pub const RETRY_HERE: Duration = Duration::from_millis(500);
/// The agent: the shortest pause before a failed connection is tried again ...
pub const RETRY_SHORTEST: Duration = Duration::from_millis(100);
/// ... and the longest, which doubling ends at.
pub const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// The agent: an authorized connection that lived so long was worth having; its place is tried again at once.
pub const PROVED: Duration = Duration::from_secs(10);
/// The agent: the local service must be connected after this, looking up its name included.
pub const CONNECT_SERVICE: Duration = Duration::from_secs(10);
/// The agent: a Connector that did not know version 2, or the preamble of dev mode, is asked again after this.
pub const ASK_AGAIN: Duration = Duration::from_secs(600);
/// The agent: behind `AUTHORIZED` the Connector's hello is waited for so long; it is in the same segment.
pub const HELLO: Duration = Duration::from_secs(1);
/// The agent: connections of one service at most, as the Connector asks for them; more only if the settings say so.
pub const LINES: usize = 4096;
/// The agent: connections that the Connector has asked for go again when they were not needed for so long.
pub const UNUSED: Duration = Duration::from_secs(60);
/// The agent: over plain TCP payload waits so long for the answer to a heartbeat that was sent before it.
pub const BEAT_HOLD: Duration = Duration::from_secs(1);
/// A tunnel's listening end calls the other one this often ...
/// Longer than [`SETTLE`], which would else never pass.
pub const CALL_AGAIN: Duration = Duration::from_millis(500);
/// ... and gives up after this. With version 2 the Connector looks for the other end, for as long.
pub const CALL: Duration = Duration::from_secs(10);
/// Version 2: a client of a tunnel is closed if the Connector says nothing of it for so long. Longer than [`CALL`].
pub const CALL_ANSWER: Duration = Duration::from_secs(15);
/// A tunnel's clients wait so long for a free connection.
pub const WAIT_FOR_LINE: Duration = Duration::from_secs(5);

/// Bytes of a mapping's name.
pub const NAME: usize = 64;
/// A proxy of `trustproxy` has said where its user comes from.
pub const PROXY_HEADER: Duration = Duration::from_secs(3);
/// Messages of one connection that are looked at in one turn of the loop; then the others have theirs.
pub const MESSAGES_A_TURN: usize = 16;
/// Chunks of payload that one direction of a session moves in one turn; the same of what is thrown away.
pub const CHUNKS_A_TURN: usize = 4;
/// Bytes that are read at once of what is not passed on: passcodes, heartbeats, requests.
pub const SMALL_READ: usize = 16 * 1024;
/// While the process ends, it looks this often whether everything has been delivered: acknowledgements raise no event.
pub const STOP_POLL: Duration = Duration::from_millis(20);
/// TLS alerts of one connection that are only warnings.
pub const WARNINGS: usize = 4;
/// Of so many relay buffers one is not lent for the beginnings of records, but one at least.
pub const BUFFERS_FOR_PAYLOAD: usize = 8;
/// Of so many relay buffers one is for networks that hold few.
pub const BUFFERS_FOR_FEW: usize = 4;

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
