//! Who may call the API: requests that came through the event loop, from an address in `controllers`,
//! with the token of `apitoken`. Whoever may not is told so, and the log is, once in a while for each address.

use super::answer::Answer;
use crate::cidr::{Cidr, may_call};
use crate::failure;
use crate::files;
use crate::limits::{CONFIG_FILE, TOKEN};
use crate::network::Network;
use crate::relay::api::caller::ApiCaller;
use crate::secret::Secret;
use crate::throttle::{Throttles, and_more};
use log::warn;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use thiserror::Error;

/// What the log says: an ioFog Controller cannot be told to send one.
const NO_TOKEN: &str = "a bearer token is missing (ioFog Controllers 1.x send none: for them, remove `apitoken`)";

/// The rules, and who has been refused lately.
pub(super) struct Access {
    pub controllers: Option<Vec<Cidr>>,
    pub token: Option<Secret>,
    /// What the log has said.
    refused: Throttles<(Network, &'static str)>,
}

impl Access {
    pub fn new(controllers: Option<Vec<Cidr>>, token: Option<Secret>) -> Self {
        Self { controllers, token, refused: Throttles::default() }
    }

    /// Whether `peer`, who sent this `Authorization` header, may call; the answer if not.
    pub fn check(&mut self, peer: &ApiCaller, authorization: Option<&str>, now: Instant) -> Result<(), Answer> {
        if !may_call(self.controllers.as_deref(), peer.ip) {
            self.log(peer.ip, "its address is not in `controllers`", now);
            return Err(Answer::failed(403, "Forbidden", &failure::not_a_controller(peer.ip)));
        }
        match (&self.token, authorization.and_then(bearer)) {
            (Some(token), Some(offered)) if token.matches(offered.as_bytes()) => Ok(()),
            (Some(_), offered) => {
                let (reason, logged) = match offered {
                    Some(_) => ("the bearer token is wrong", "the bearer token is wrong"),
                    None => ("a bearer token is missing", NO_TOKEN),
                };
                self.log(peer.ip, logged, now);
                Err(Answer::failed(401, "Unauthorized", reason).with_header("WWW-Authenticate", "Bearer"))
            }
            (None, _) => Ok(()),
        }
    }

    /// 403 for `peer`.
    pub fn refuse(&mut self, peer: &ApiCaller, reason: &'static str, now: Instant) -> Answer {
        self.log(peer.ip, reason, now);
        Answer::failed(403, "Forbidden", reason)
    }

    fn log(&mut self, ip: IpAddr, reason: &'static str, now: Instant) {
        if let Some(unsaid) = self.refused.may_say((Network::of(ip), reason), now) {
            warn!("API request from {ip} refused: {reason}{}", and_more(unsaid));
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Reads the file of the key `apitoken`; white space around the token does not count.
pub fn read_token(file: &Path) -> Result<Secret, TokenError> {
    let failed = |cause| TokenError { file: file.to_owned(), cause };
    let text = files::read_text(file, CONFIG_FILE).map_err(failed)?;
    match text.trim() {
        "" => Err(failed(io::Error::other("the file is empty, expected a token"))),
        token if token.len() > TOKEN || !token.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
            let expected =
                format!("expected one line of printable ASCII, {TOKEN} bytes at most: it goes into a header");
            Err(failed(io::Error::other(expected)))
        }
        token => Ok(Secret::new(token)),
    }
}

/// Why there is no token to compare with.
#[derive(Debug, Error)]
#[error("{file} (key \"apitoken\"): cannot be used: {cause}{}", if self.is_forbidden() { "; it is for root and the daemon's user" } else { "" })]
pub struct TokenError {
    file: PathBuf,
    cause: io::Error,
}

impl TokenError {
    /// The file is not for this user.
    pub fn is_forbidden(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::fs;

    fn peer(ip: &str) -> ApiCaller {
        ApiCaller { ip: ip.parse().unwrap(), is_here: false, only_reads: false }
    }

    #[test]
    fn only_listed_addresses_may_call() {
        let controllers = ["10.0.0.0/8", "2001:db8::1"].map(|range| range.parse().unwrap());
        let mut access = Access::new(Some(controllers.to_vec()), None);
        let mut status = |ip| access.check(&peer(ip), None, Instant::now()).map_err(|answer| answer.status);
        assert_eq!(status("10.1.2.3"), Ok(()));
        assert_eq!(status("2001:db8::1"), Ok(()));
        assert_eq!(status("11.1.2.3"), Err(403));
        assert_eq!(status("127.0.0.1"), Err(403));
        let mut nobody = Access::new(Some(Vec::new()), None);
        assert!(nobody.check(&peer("10.1.2.3"), None, Instant::now()).is_err());
    }

    #[test]
    fn the_token_must_be_there_and_right() {
        let mut access = Access::new(None, Some(Secret::new("t0ken")));
        for (authorization, expected) in [
            (Some("Bearer t0ken"), Ok(())),
            (Some("bearer  t0ken"), Ok(())),
            (None, Err(401)),
            (Some(""), Err(401)),
            (Some("Bearer"), Err(401)),
            (Some("Bearer "), Err(401)),
            (Some("Bearer t0ken2"), Err(401)),
            (Some("Basic t0ken"), Err(401)),
        ] {
            let answer = access.check(&peer("10.1.2.3"), authorization, Instant::now());
            assert_eq!(answer.map_err(|answer| answer.status), expected, "{authorization:?}");
        }
    }

    #[test]
    fn a_token_file_is_read_or_named() {
        let folder = Folder::new();
        let file = folder.0.join("token");
        assert!(
            read_token(&file).unwrap_err().to_string().contains("token (key \"apitoken\"): cannot be used: No such")
        );
        fs::write(&file, " \n").unwrap();
        assert!(read_token(&file).unwrap_err().to_string().contains("empty"));
        for text in ["a\nb", "tab\tin it", &"x".repeat(TOKEN + 1)] {
            fs::write(&file, text).unwrap();
            assert!(read_token(&file).unwrap_err().to_string().contains("expected one line"));
        }
        fs::write(&file, "abc\n").unwrap();
        assert_eq!(read_token(&file).unwrap(), Secret::new("abc"));
    }
}
