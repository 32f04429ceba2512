//! What is said to a proxy on the way to the Connector: SOCKS5 (RFC 1928, 1929) or HTTP CONNECT (RFC 9110). No I/O.

use super::target::Target;
use crate::limits::PROXY_ANSWER;
use crate::secret::Secret;
use std::net::IpAddr;
use std::str::FromStr;

/// Through whom the Connector is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    pub(super) target: Target,
    login: Option<Login>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Socks5,
    Http,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    user: String,
    password: Secret,
}

/// How far the talk with the proxy is: what is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// SOCKS5: how to log in.
    Method,
    /// SOCKS5: whether that was right.
    Login,
    /// Whether the Connector is connected.
    Answer,
}

/// What comes next, after what was heard at a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So many bytes more, and none behind them: those are the Connector's.
    Missing(usize),
    Say(Vec<u8>, Stage),
    Connected,
}

impl Proxy {
    /// What to begin with.
    pub(super) fn begin(&self, to: &Target) -> (Vec<u8>, Stage) {
        match (self.kind, &self.login) {
            (Kind::Socks5, None) => (vec![5, 1, 0], Stage::Method),
            (Kind::Socks5, Some(_)) => (vec![5, 2, 0, 2], Stage::Method),
            (Kind::Http, login) => {
                let login = login.as_ref().map(|Login { user, password }| {
                    let pair = base64(format!("{user}:{}", password.expose()).as_bytes());
                    format!("Proxy-Authorization: Basic {pair}\r\n")
                });
                let login = login.unwrap_or_default();
                (format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{login}\r\n").into_bytes(), Stage::Answer)
            }
        }
    }

    /// Errors: what the proxy has against it.
    pub(super) fn proceed(&self, to: &Target, stage: Stage, heard: &[u8]) -> Result<Next, String> {
        match (self.kind, stage, heard) {
            (Kind::Http, ..) => http_answer(heard),
            (_, Stage::Method | Stage::Login, [] | [_]) => Ok(Next::Missing(2 - heard.len())),
            (_, Stage::Method, [5, 0]) | (_, Stage::Login, [_, 0]) => Ok(Next::Say(socks_request(to)?, Stage::Answer)),
            (_, Stage::Method, [5, 2]) => match &self.login {
                Some(login) => Ok(Next::Say(login.as_socks(), Stage::Login)),
                None => Err("it asks for a password that was not asked for".to_owned()),
            },
            (_, Stage::Method, [5, _]) => Err("it wants a user and a password, or another way to log in".to_owned()),
            (_, Stage::Method, _) => Err("it does not speak SOCKS5".to_owned()),
            (_, Stage::Login, _) => Err("it refuses the user or the password".to_owned()),
            (_, Stage::Answer, heard) => socks_answer(heard),
        }
    }
}

impl FromStr for Login {
    type Err = ();

    /// `USER:PASSWORD`, percent-encoded; neither may be longer than SOCKS5 can say.
    fn from_str(text: &str) -> Result<Self, ()> {
        let part = |encoded| decoded(encoded).filter(|part| (1..=255).contains(&part.len())).ok_or(());
        let (user, password) = text.split_once(':').ok_or(())?;
        Ok(Self { user: part(user)?, password: Secret::new(part(password)?) })
    }
}

/// `p%40ss` is `p@ss`. `None`: a percent sign is followed by something else than two hexadecimal digits, or what comes
/// out is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut encoded = text.bytes();
    let mut bytes = Vec::with_capacity(text.len());
    while let Some(byte) = encoded.next() {
        let mut digit = || char::from(encoded.next()?).to_digit(16);
        bytes.push(if byte == b'%' { (digit()? << 4 | digit()?) as u8 } else { byte });
    }
    String::from_utf8(bytes).ok()
}

impl Login {
    fn as_socks(&self) -> Vec<u8> {
        let (user, password) = (self.user.as_bytes(), self.password.expose().as_bytes());
        // Neither is longer than 255 bytes: `from_str` sees to that.
        [&[1, user.len() as u8], user, &[password.len() as u8], password].concat()
    }
}

fn socks_request(to: &Target) -> Result<Vec<u8>, String> {
    let host = match to.host.parse() {
        Ok(IpAddr::V4(ip)) => [&[1], &ip.octets()[..]].concat(),
        Ok(IpAddr::V6(ip)) => [&[4], &ip.octets()[..]].concat(),
        Err(_) => {
            let length =
                u8::try_from(to.host.len()).map_err(|_| "the Connector's name is too long for it".to_owned())?;
            [&[3, length], to.host.as_bytes()].concat()
        }
    };
    Ok([&[5, 1, 0], &host[..], &to.port.to_be_bytes()].concat())
}

fn socks_answer(heard: &[u8]) -> Result<Next, String> {
    let whole = match heard {
        [5, 0, _, 1, ..] => 10,
        [5, 0, _, 4, ..] => 22,
        [5, 0, _, 3, length, ..] => 7 + usize::from(*length),
        [5, 0, _, 3] => 5,
        [5, reason, _, _, ..] if *reason != 0 => return Err(format!("it cannot connect: {}", socks_reason(*reason))),
        [] | [5] | [5, _] | [5, _, _] => 4,
        _ => return Err("it does not speak SOCKS5".to_owned()),
    };
    Ok(if heard.len() < whole { Next::Missing(whole - heard.len()) } else { Next::Connected })
}

fn socks_reason(reason: u8) -> &'static str {
    match reason {
        2 => "its rules do not allow it",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        _ => "general failure",
    }
}

/// An answer has no body if it grants what was asked.
fn http_answer(heard: &[u8]) -> Result<Next, String> {
    if !heard.ends_with(b"\r\n\r\n") {
        return if heard.len() < PROXY_ANSWER {
            Ok(Next::Missing(1))
        } else {
            Err("its answer is too long".to_owned())
        };
    }
    let line = heard.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1));
    match status {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(Next::Connected),
        // As a string literal: nothing in it gives orders to a terminal.
        Some(_) => Err(format!("it answers {:?}", line.chars().take(80).collect::<String>())),
        None => Err("it does not speak HTTP".to_owned()),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode = |chunk: &[u8]| {
        let bits = chunk.iter().chain([&0, &0]).take(3).fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        let digit = |place: usize| match place <= chunk.len() {
            true => char::from(DIGITS[bits >> (18 - 6 * place) & 63]),
            false => '=',
        };
        [digit(0), digit(1), digit(2), digit(3)]
    };
    bytes.chunks(3).flat_map(encode).collect()
}

/// What [`Proxy::from_str`] expects.
pub const EXPECTED: &str =
    "socks5://HOST:PORT or http://HOST:PORT, with USER:PASSWORD@ (percent-encoded) before HOST if it asks for that";

impl FromStr for Proxy {
    type Err = String;

    /// The error does not show the text: there may be a password in it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected {EXPECTED}");
        let (kind, rest) = match text.split_once("://").ok_or_else(wrong)? {
            ("socks5" | "socks5h", rest) => (Kind::Socks5, rest),
            ("http", rest) => (Kind::Http, rest),
            _ => return Err(wrong()),
        };
        let (login, target) = match rest.rsplit_once('@') {
            Some((login, target)) => (Some(login.parse().map_err(|()| wrong())?), target),
            None => (None, rest),
        };
        // The first colon would end it there.
        if kind == Kind::Http && login.as_ref().is_some_and(|login: &Login| login.user.contains(':')) {
            return Err(wrong());
        }
        let target = target.strip_suffix('/').unwrap_or(target).parse().map_err(|_| wrong())?;
        Ok(Self { kind, target, login })
    }
}

impl Proxy {
    /// It has a password with it.
    pub(super) fn has_login(&self) -> bool {
        self.login.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_written_as_urls_and_errors_do_not_show_passwords() {
        let proxy: Proxy = "socks5://user:p@ss@[::1]:1080/".parse().unwrap();
        assert_eq!(proxy.target.to_string(), "[::1]:1080");
        assert_eq!(proxy.login.unwrap().password.expose(), "p@ss");
        let proxy: Proxy = "http://%75s%C3%a9r:p%40s%3As%25%2f@proxy:3128".parse().unwrap();
        let login = proxy.login.unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("usér", "p@s:s%/"));
        for wrong in [
            "a:1",
            "ftp://a:1",
            "http://a",
            "http://hush@a:1",
            "http://hush:@a:1",
            "http://hush:hush@a",
            "http://h:hush%@a:1",
            "http://h:hush%4@a:1",
            "http://h:hush%zz@a:1",
            "http://h:hush%ff@a:1",
            "http://h%3ahush:x@a:1",
        ] {
            assert!(!wrong.parse::<Proxy>().unwrap_err().contains("hush"), "{wrong}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        cases.iter().for_each(|(plain, encoded)| assert_eq!(base64(plain.as_bytes()), *encoded));
    }

    #[test]
    fn nothing_behind_an_answer_is_asked_for() {
        let to: Target = "relay:1".parse().unwrap();
        for (proxy, stage, whole) in [
            ("socks5://p:1", Stage::Answer, &b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..]),
            ("socks5://p:1", Stage::Answer, b"\x05\x00\x00\x03\x02ab\x00\x01"),
            ("socks5://p:1", Stage::Answer, &[&[5, 0, 0, 4][..], &[0; 18]].concat()),
            ("http://p:1", Stage::Answer, b"HTTP/1.1 200 Connection established\r\nA: b\r\n\r\n"),
        ] {
            let proxy: Proxy = proxy.parse().unwrap();
            for cut in 0..whole.len() {
                let Ok(Next::Missing(missing)) = proxy.proceed(&to, stage, &whole[..cut]) else { panic!("{cut}") };
                assert!((1..=whole.len() - cut).contains(&missing), "{missing} at {cut}");
            }
            assert_eq!(proxy.proceed(&to, stage, whole), Ok(Next::Connected));
        }
        let refused =
            |proxy: &str, stage, heard: &[u8]| proxy.parse::<Proxy>().unwrap().proceed(&to, stage, heard).is_err();
        assert!(refused("socks5://p:1", Stage::Answer, &[5, 5, 0, 1]));
        assert!(refused("socks5://p:1", Stage::Method, &[5, 255]) && refused("socks5://p:1", Stage::Method, b"HT"));
        assert!(refused("http://p:1", Stage::Answer, b"HTTP/1.1 407 Who are you\r\n\r\n"));
        assert!(refused("http://p:1", Stage::Answer, &[b'x'; PROXY_ANSWER]));
    }
}
