//! One socket, plain or TLS, and moving bytes between two of them: what both ends of the wire need.
//!
//! Nothing here knows of mappings, users or agents, and nothing here blocks.
//!
//! | file | idea |
//! |---|---|
//! | `buffers` | the fixed pool, and what one turn of the loop works on |
//! | `outbox` | bytes that a peer has not taken yet |
//! | `inbox` | encrypted bytes that are no whole record yet |
//! | `stream` | TCP or Unix: read, peek, write |
//! | `tls` | rustls behind "take this record", "seal this record" |
//! | `link` | a stream, its TLS and its outbox together |
//! | `link::reading` | how bytes and records come out of a link |
//! | `closing` | the end of a link: deliver, say goodbye, wait for the peer's |
//! | `pump` | moves bytes from one link to another |
//! | `pump::plain` | the same where neither has TLS |
//! | `pump::records` | the same where either has TLS |
//! | `framed` | version 2 on a link: its sessions, and what is to be sent beside payload |
//! | `words` | a tunnel's words on a link of version 1 |
//! | `marked` | payload without records: where it begins on a connection of dev mode |
//! | `tcp` | listening, dialling and the socket options |
//! | `certificate` | certificate and key files |
//! | `provider` | the cryptography of TLS |
//! | `server_name` | what a TLS client calls the server |
//! | `server_tls` | what TLS is set up to at the daemon's ports |
//! | `trust` | whether the other end of a dialled connection is the Connector |
//! | `authority` | whom the API port takes for a Controller |
//! | `expiry` | until when a certificate is valid |
//! | `reactor` | poll, readiness, deadlines, and which connections are only closing |
//! | `session` | two connections that are joined, until one of them ends |
//! | `service` | the turn of an event loop |
//! | `shortage` | who is ended when all buffers are in use |

pub mod authority;
pub mod buffers;
pub mod certificate;
pub mod closing;
pub mod expiry;
pub mod framed;
mod inbox;
pub mod link;
pub mod marked;
pub mod outbox;
pub mod provider;
pub mod pump;
pub mod reactor;
mod server_name;
pub mod server_tls;
pub mod service;
pub mod session;
pub mod shortage;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod trust;
pub mod words;
