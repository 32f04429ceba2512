//! The hello: behind the agent's passcode, in the same message, and behind the Connector's `AUTHORIZED`.
//!
//! The Connector's has the token of the agent's: a user who says the same cannot be taken for the Connector.

/// Bytes of a hello.
pub const LENGTH: usize = 20;
/// No text begins like this.
const MAGIC: &[u8] = b"\0iofog/2";
/// The version that is spoken here.
const VERSION: u8 = 2;
/// Flag: the agent begins the sessions on this connection.
const CALLS: u8 = 1;
/// Nobody may accept less than this in one frame.
const SMALLEST: u16 = 1024;

/// What one side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Bytes of payload that it takes in one frame.
    pub largest: u16,
    /// The agent begins the sessions, and not the Connector; the answer repeats it if it is so.
    pub calls: bool,
    /// The agent's choice; the answer repeats it.
    pub token: [u8; 8],
}

/// What the first bytes behind the passcode, or behind `AUTHORIZED`, are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Hello(Hello),
    /// The beginning of one; so many bytes are missing.
    Part(usize),
    /// Something else.
    Other,
}

impl Hello {
    /// As it is sent.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = VERSION;
        bytes[9] = if self.calls { CALLS } else { 0 };
        bytes[10..12].copy_from_slice(&self.largest.to_be_bytes());
        bytes[12..].copy_from_slice(&self.token);
        bytes
    }
}

/// How many of the first bytes of an agent are a passcode: a hello may stand behind it.
pub fn length_before(bytes: &[u8]) -> usize {
    let before = bytes.len().saturating_sub(LENGTH);
    if matches!(parse(&bytes[before..]), Parsed::Hello(_)) { before } else { bytes.len() }
}

/// Looks at what may be a hello. The sender may speak later versions, too.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins = MAGIC.len().min(bytes.len());
    if bytes[..begins] != MAGIC[..begins] || bytes.get(8).is_some_and(|&version| version < VERSION) {
        return Parsed::Other;
    }
    let Some(&[_, flags, high, low, ref token @ ..]) = bytes.get(8..LENGTH) else {
        return Parsed::Part(LENGTH - bytes.len());
    };
    let (largest, token) = (u16::from_be_bytes([high, low]), token.try_into());
    match token {
        Ok(token) if largest >= SMALLEST => Parsed::Hello(Hello { largest, calls: flags & CALLS != 0, token }),
        _ => Parsed::Other,
    }
}
