//! What an unauthenticated agent has said so far: the passcode, perhaps with the preamble before it. No I/O.

use super::v1::PREAMBLE;
use crate::secret::Secret;

/// The bytes of one connection that has not been authorized.
#[derive(Debug, Default)]
pub struct Offer {
    /// The passcode, behind the preamble if there was one.
    pub bytes: Vec<u8>,
    /// The agent marks where payload begins.
    pub has_preamble: bool,
    /// What stood behind the passcode in the same record.
    pub behind: Vec<u8>,
}

/// How far an [`Offer`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes must come before more can be said. Never 0.
    Missing(usize),
    /// The preamble was complete. Once.
    Preamble,
    /// The passcode can be compared.
    Complete,
}

impl Offer {
    /// Looks at what has come. `may_begin`: a preamble is understood here.
    pub fn progress(&mut self, passcode: &Secret, may_begin: bool) -> Progress {
        if may_begin && !self.has_preamble {
            if self.bytes.starts_with(PREAMBLE) {
                self.bytes.drain(..PREAMBLE.len());
                self.has_preamble = true;
                return Progress::Preamble;
            }
            // A passcode may be shorter than the preamble.
            if !self.bytes.is_empty() && PREAMBLE.starts_with(&self.bytes) && !passcode.matches(&self.bytes) {
                return Progress::Missing(PREAMBLE.len() - self.bytes.len());
            }
        }
        match passcode.expose().len().checked_sub(self.bytes.len()) {
            None | Some(0) => Progress::Complete,
            Some(missing) => Progress::Missing(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSCODE: &str = "3c1b6f2e-6d3a-4a54-9d5f-0b7f6f1c2a3d";

    /// Feeds `bytes` as a connection would, never more than is asked for. Returns whether the passcode is the right
    /// one, and what is left; `None`: more would have to come.
    fn hear<'b>(offer: &mut Offer, mut bytes: &'b [u8], piece: usize, passcode: &str) -> Option<(bool, &'b [u8])> {
        let passcode = Secret::new(passcode);
        loop {
            match offer.progress(&passcode, true) {
                Progress::Missing(_) if bytes.is_empty() => return None,
                Progress::Missing(missing) => {
                    let (now, later) = bytes.split_at(missing.min(piece).min(bytes.len()));
                    offer.bytes.extend_from_slice(now);
                    bytes = later;
                }
                Progress::Preamble => assert!(offer.has_preamble),
                Progress::Complete => return Some((passcode.matches(&offer.bytes), bytes)),
            }
        }
    }

    #[test]
    fn a_preamble_may_stand_before_the_passcode_in_any_pieces() {
        let whole = [PREAMBLE, PASSCODE.as_bytes(), b"DATA"].concat();
        for (said, preamble) in [(&whole[..], true), (&whole[PREAMBLE.len()..], false)] {
            for piece in 1..=said.len() {
                let mut offer = Offer::default();
                assert_eq!(hear(&mut offer, said, piece, PASSCODE), Some((true, &b"DATA"[..])), "{piece}");
                assert_eq!(offer.has_preamble, preamble);
            }
        }
    }

    #[test]
    fn short_passcodes_are_right_and_wrong_as_long_ones_are() {
        let is_right = |said: &[u8], piece, passcode| hear(&mut Offer::default(), said, piece, passcode).map(|it| it.0);
        for passcode in ["i", "iofog", "x", PASSCODE] {
            assert_eq!(is_right(passcode.as_bytes(), 1, passcode), Some(true), "{passcode}");
            if !PREAMBLE.starts_with(passcode.as_bytes()) {
                let marked = [PREAMBLE, passcode.as_bytes()].concat();
                assert_eq!(is_right(&marked, 64, passcode), Some(true), "{passcode}");
            }
        }
        assert_eq!(is_right(&b"?".repeat(36), 7, PASSCODE), Some(false));
        assert_eq!(is_right(&[PREAMBLE, PREAMBLE, PASSCODE.as_bytes()].concat(), 64, PASSCODE), Some(false));
    }
}
