//! What an unauthenticated agent has said so far: the passcode, perhaps with the preamble before it. No I/O.

use crate::net::wire::PREAMBLE;
use crate::secret::Secret;

/// The bytes of one connection that has not been authorized.
#[derive(Debug, Default)]
pub(super) struct Offer {
    bytes: Vec<u8>,
    has_preamble: bool,
}

/// What an [`Offer`] amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// So many bytes must come before more can be said. Never 0.
    Undecided(usize),
    /// The preamble was complete. Once.
    Preamble,
    Right,
    Wrong,
}

impl Offer {
    /// Adds what has come.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The agent marks where payload begins.
    pub(super) fn has_preamble(&self) -> bool {
        self.has_preamble
    }

    /// Looks at what has come. `may_begin`: a preamble is understood here.
    pub(super) fn judge(&mut self, passcode: &Secret, may_begin: bool) -> Judgement {
        if may_begin && !self.has_preamble {
            if self.bytes.starts_with(PREAMBLE) {
                self.bytes.drain(..PREAMBLE.len());
                self.has_preamble = true;
                return Judgement::Preamble;
            }
            // A passcode may be shorter than the preamble.
            if !self.bytes.is_empty() && PREAMBLE.starts_with(&self.bytes) && !passcode.matches(&self.bytes) {
                return Judgement::Undecided(PREAMBLE.len() - self.bytes.len());
            }
        }
        match passcode.expose().len().checked_sub(self.bytes.len()) {
            None => Judgement::Wrong,
            Some(0) if passcode.matches(&self.bytes) => Judgement::Right,
            Some(0) => Judgement::Wrong,
            Some(missing) => Judgement::Undecided(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSCODE: &str = "3c1b6f2e-6d3a-4a54-9d5f-0b7f6f1c2a3d";

    /// Feeds `bytes` as a connection would, never more than is asked for. Returns the judgement and what is left.
    fn hear<'b>(offer: &mut Offer, mut bytes: &'b [u8], piece: usize, passcode: &str) -> (Judgement, &'b [u8]) {
        loop {
            match offer.judge(&Secret::new(passcode), true) {
                Judgement::Undecided(_) if bytes.is_empty() => return (Judgement::Undecided(0), bytes),
                Judgement::Undecided(missing) => {
                    let (now, later) = bytes.split_at(missing.min(piece).min(bytes.len()));
                    offer.extend(now);
                    bytes = later;
                }
                Judgement::Preamble => assert!(offer.has_preamble()),
                decided => return (decided, bytes),
            }
        }
    }

    #[test]
    fn a_preamble_may_stand_before_the_passcode_in_any_pieces() {
        let whole = [PREAMBLE, PASSCODE.as_bytes(), b"DATA"].concat();
        for (said, preamble) in [(&whole[..], true), (&whole[PREAMBLE.len()..], false)] {
            for piece in 1..=said.len() {
                let mut offer = Offer::default();
                assert_eq!(hear(&mut offer, said, piece, PASSCODE), (Judgement::Right, &b"DATA"[..]), "{piece}");
                assert_eq!(offer.has_preamble(), preamble);
            }
        }
    }

    #[test]
    fn short_passcodes_are_right_and_wrong_as_long_ones_are() {
        for passcode in ["i", "iofog", "x", PASSCODE] {
            let mut offer = Offer::default();
            assert_eq!(hear(&mut offer, passcode.as_bytes(), 1, passcode).0, Judgement::Right, "{passcode}");
            let mut offer = Offer::default();
            let marked = [PREAMBLE, passcode.as_bytes()].concat();
            let expected = if PREAMBLE.starts_with(passcode.as_bytes()) { None } else { Some(Judgement::Right) };
            let judged = hear(&mut offer, &marked, 64, passcode).0;
            assert!(expected.is_none_or(|expected| judged == expected), "{passcode}: {judged:?}");
        }
        let mut offer = Offer::default();
        assert_eq!(hear(&mut offer, &b"?".repeat(36), 7, PASSCODE).0, Judgement::Wrong);
        let mut twice = Offer::default();
        let said = [PREAMBLE, PREAMBLE, PASSCODE.as_bytes()].concat();
        assert_eq!(hear(&mut twice, &said, 64, PASSCODE).0, Judgement::Wrong);
    }
}
