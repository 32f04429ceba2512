//! What agents and the daemon say to each other besides payload. Pure: bytes in, meaning out, no socket.
//!
//! | file | idea |
//! |---|---|
//! | `v1` | the field's protocol: `AUTHORIZED`, heartbeats, how payload is kept apart from them |
//! | `v2` | frames, between our own agent and our own Connector |
//! | `passcode` | what an unauthenticated agent has said so far |
//! | `proxy_protocol` | where a user came from, for the service behind its agent |
//! | `tunnel` | how the two ends of a tunnel find each other through a private pipe |

pub mod passcode;
pub mod proxy_protocol;
pub mod tunnel;
pub mod v1;
pub mod v2;
