use super::*;
use crate::testing::Random;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

const PEER: ApiCaller =
    ApiCaller { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9)), is_here: false, only_reads: false };

/// Everything that comes of these bytes, pushed `piece` at a time; ends at the first refusal.
fn steps(bytes: &[u8], piece: usize) -> Vec<Step> {
    let (mut collector, mut steps) = (Collector::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        collector.push(piece);
        loop {
            match collector.next(&PEER) {
                Step::Incomplete => break,
                Step::Request { bytes, last } => {
                    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
                    let head = std::str::from_utf8(&bytes[..end]).unwrap().replace(&PEER.write(), "SEAL");
                    steps.push(Step::Request { bytes: [head.as_bytes(), &bytes[end..]].concat(), last });
                }
                step => steps.push(step),
            }
        }
    }
    steps
}

fn requests(bytes: &[u8]) -> Vec<(String, bool)> {
    let text = |step| match step {
        Step::Request { bytes, last } => (String::from_utf8(bytes).unwrap(), last),
        step => panic!("{step:?} instead of a request"),
    };
    steps(bytes, usize::MAX).into_iter().map(text).collect()
}

fn refusal(bytes: &[u8]) -> Refusal {
    let mut steps = steps(bytes, usize::MAX);
    match steps.pop() {
        Some(Step::Refuse(refusal)) if steps.is_empty() => refusal,
        other => panic!("{:?}: {steps:?} {other:?} instead of a refusal", String::from_utf8_lossy(bytes)),
    }
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /api/v2/status HTTP/1.1\r\nHost: c\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn a_request_is_written_anew_with_what_the_api_looks_at() {
    let request = post(
        "User-Agent: curl\r\nX-Forwarded-For: 127.0.0.1\r\nX-Connector-Peer: forged 127.0.0.1 here\r\ncontent-TYPE:  a/b \r\n\
         Authorization: Bearer t\r\nTE: chunked\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 13\r\n",
        "mappingid=ä%",
    );
    let expected = "POST /api/v2/status HTTP/1.1\r\nX-Connector-Peer: SEAL\r\nConnection: close\r\nContent-Length: 13\r\n\
         Content-Type: a/b\r\nAuthorization: Bearer t\r\n\r\nmappingid=ä%";
    assert_eq!(requests(&request), [(expected.to_owned(), false)]);
}

#[test]
fn requests_may_come_in_pieces_or_several_at_once() {
    let mut bytes = post("Content-Length: 3\r\n", "abc");
    bytes.extend(b"\r\n\r\nGET /x?y HTTP/1.1\r\nHost: c:443\r\n\r\n");
    bytes.extend(post("Transfer-Encoding: Chunked\r\n", "1;ext=1\r\nd\r\n002\r\nef\r\n0\r\nX: y\r\n\r\n"));
    let whole = steps(&bytes, usize::MAX);
    assert_eq!(whole.len(), 3, "{whole:?}");
    for piece in [1, 2, 3, 7, 50] {
        assert_eq!(steps(&bytes, piece), whole, "in pieces of {piece}");
    }
    let texts: Vec<String> = requests(&bytes).into_iter().map(|(text, _)| text).collect();
    assert!(texts[0].contains("Content-Length: 3\r\n\r\nabc"), "{}", texts[0]);
    assert!(texts[1].starts_with("GET /x?y HTTP/1.1\r\n") && texts[1].ends_with("Content-Length: 0\r\n\r\n"));
    assert!(texts[2].contains("Content-Length: 3\r\n\r\ndef"), "{}", texts[2]);
}

#[test]
fn between_requests_nothing_is_held() {
    let mut collector = Collector::default();
    let body = "x".repeat(REQUEST_BODY);
    collector.push(&post(&format!("Content-Length: {REQUEST_BODY}\r\n"), &body));
    assert!(matches!(collector.next(&PEER), Step::Request { last: false, .. }));
    assert_eq!(collector.bytes.capacity(), 0);
    collector.push(b"\r\n\r\n");
    assert_eq!(collector.next(&PEER), Step::Incomplete);
    assert!(collector.is_empty(), "empty lines are the beginning of nothing");
}

#[test]
fn the_last_request_of_a_connection_is_marked_and_nothing_behind_it_read() {
    let http_1_0 = b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n".to_vec();
    let close = [post("Connection: keep-alive , CLOSE\r\n", ""), post("", "")].concat();
    for bytes in [http_1_0, close] {
        let requests = requests(&bytes);
        assert_eq!((requests.len(), requests[0].1), (1, true));
    }
}

#[test]
fn a_client_that_waits_is_told_to_continue_once() {
    let head = post("Expect: 100-Continue\r\nContent-Length: 2\r\n", "");
    assert_eq!(steps(&head, 1), [Step::Continue]);
    let whole = [head.clone(), b"ab".to_vec()].concat();
    assert_eq!(steps(&whole, usize::MAX).len(), 1, "the body is there already");
    let steps = steps(&whole, head.len());
    assert!(matches!(&steps[..], [Step::Continue, Step::Request { .. }]), "{steps:?}");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_there() {
    let line = vec![b'a'; REQUEST_HEAD + 1];
    let header = [b"POST / HTTP/1.1\r\nX: ".to_vec(), line.clone()].concat();
    let length = post(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n", REQUEST_BODY + 1), "");
    let chunk = post("Transfer-Encoding: chunked\r\n", &format!("{:x}\r\n", REQUEST_BODY + 1));
    let endless = post("Transfer-Encoding: chunked\r\n", &"1\r\na\r\n".repeat(REQUEST_BODY + 1));
    let trailers = post("Transfer-Encoding: chunked\r\n", &format!("0\r\n{}", "a: b\r\n".repeat(REQUEST_HEAD)));
    let blank = b"\r\n".repeat(100_000);
    for (bytes, status) in [
        (line, Status::TARGET_TOO_LONG),
        (header, Status::HEAD_TOO_LARGE),
        (post(&"a: b\r\n".repeat(200), ""), Status::HEAD_TOO_LARGE),
        (length, Status::BODY_TOO_LARGE),
        (post("Content-Length: 99999999999999999999999\r\n", ""), Status::BODY_TOO_LARGE),
        (chunk, Status::BODY_TOO_LARGE),
        (endless, Status::BODY_TOO_LARGE),
        (trailers, Status::HEAD_TOO_LARGE),
    ] {
        assert_eq!(refusal(&bytes).status(), status);
    }
    assert_eq!(steps(&blank, 1000), []);
    let limit = post(&format!("Content-Length: {REQUEST_BODY}\r\n"), &"a".repeat(REQUEST_BODY));
    assert_eq!(requests(&limit).len(), 1);
}

/// What two readers could understand differently, one per line with why.
#[test]
fn what_is_not_plain_is_refused() {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for (bytes, status, why) in [
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ""), 400, "both Transfer-Encoding and"),
        (post("Content-Length: 1\r\nContent-Length: 1\r\n", ""), 400, "Content-Length is given twice"),
        (post("Content-Length: 1, 1\r\n", ""), 400, "Content-Length is no number"),
        (post("Content-Length: +1\r\n", ""), 400, "Content-Length is no number"),
        (post("Content-Length: -1\r\n", ""), 400, "Content-Length is no number"),
        (post("Content-Length:\r\n", ""), 400, "Content-Length is no number"),
        (post("Content-Length: 1\r\n 2\r\n", ""), 400, "a header is malformed"),
        (post("Content-Length : 1\r\n", ""), 400, "a header is malformed"),
        (post("Content\0Length: 1\r\n", ""), 400, "no HTTP request"),
        (post("X: a\nContent-Length: 1\r\n", ""), 400, "LF alone"),
        (post("X: a\rContent-Length: 1\r\n", ""), 400, "CR stands alone"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""), 400, "given twice"),
        (post("Transfer-Encoding: gzip, chunked\r\n", ""), 501, "chunked"),
        (post("Transfer-Encoding: xchunked\r\n", ""), 501, "chunked"),
        (post("Transfer-Encoding: chunked\u{b}\r\n", ""), 400, "no HTTP request"),
        (post("Content-Type: ä\r\n", ""), 400, "Content-Type is not ASCII"),
        (post("Authorization: a\r\nauthorization: b\r\n", ""), 400, "given twice"),
        (post("Expect: 200-ok\r\n", ""), 417, "100-continue"),
        (chunked("\r\n"), 400, "no hexadecimal number"),
        (chunked("0x3\r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked("-1\r\n"), 400, "no hexadecimal number"),
        (chunked("3\nabc\r\n"), 400, "LF alone"),
        (chunked(&format!("3;{}\r\n", "x".repeat(300))), 400, "no hexadecimal number"),
        (chunked("3 \r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked(" 3\r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked("3 3\r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked(";\r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked("+3\r\nabc\r\n"), 400, "no hexadecimal number"),
        (chunked("3;a\nb\r\nabc\r\n"), 400, "LF alone"),
        (chunked("3;a\rb\r\nabc\r\n"), 400, "CR stands alone"),
        (chunked("3;a\0b\r\nabc\r\n"), 400, "no HTTP request"),
        (chunked("3\r\nabc\n0\r\n\r\n"), 400, "longer than it says"),
        (chunked("0\r\nX: a\n\nGET / HTTP/1.1\r\n\r\n"), 400, "LF alone"),
        (chunked("0\r\nX: a\rb\r\n\r\n"), 400, "CR stands alone"),
        (chunked("0\r\nX: \0\r\n\r\n"), 400, "no HTTP request"),
        (chunked("0\r\nno colon\r\n\r\n"), 400, "a trailer is malformed"),
        (chunked("0\r\nX: a\r\nGET / HTTP/1.1\r\n\r\n"), 400, "a trailer is malformed"),
        (chunked("0\r\n: a\r\n\r\n"), 400, "a trailer is malformed"),
        (chunked("0\r\nX : a\r\n\r\n"), 400, "a trailer is malformed"),
        (chunked("0\r\n X: a\r\n\r\n"), 400, "a trailer is malformed"),
        (chunked("0\r\nX: a\r\n b\r\n\r\n"), 400, "a trailer is malformed"),
        (b"POST / HTTP/1.1\r\n\r\n".to_vec(), 400, "Host is missing"),
        (post("Host: c\r\n", ""), 400, "Host is given twice"),
        (b"POST / HTTP/1.0\r\nHost: c\r\nhost: d\r\n\r\n".to_vec(), 400, "host is given twice"),
        (b"POST / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec(), 400, "Host is no name"),
        (b"POST / HTTP/1.0\r\nHost: a/b\r\n\r\n".to_vec(), 400, "Host is no name"),
        (b"POST / HTTP/1.1\r\n Content-Length: 3\r\n\r\nabc".to_vec(), 400, "malformed"),
        (b"POST / HTTP/1.1\r\n: 3\r\n\r\nabc".to_vec(), 400, "malformed"),
        (chunked("ffffffffffffffff\r\n"), 413, "longer than 65536"),
        (chunked("11111111111111111\r\n"), 400, "no hexadecimal number"),
        (chunked("3\r\nabcd\r\n"), 400, "longer than it says"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400, "HTTP/1.0 knows no"),
        (b"POST / HTTP/2.0\r\n\r\n".to_vec(), 505, "expected HTTP/1.1"),
        (b"POST / HTTP/1.1 x\r\n\r\n".to_vec(), 400, "malformed"),
        (b"POST  / HTTP/1.1\r\n\r\n".to_vec(), 400, "malformed"),
        (b"POST /\r\n\r\n".to_vec(), 400, "malformed"),
        (b"P(ST / HTTP/1.1\r\n\r\n".to_vec(), 400, "malformed"),
        ("POST /ä HTTP/1.1\r\n\r\n".as_bytes().to_vec(), 400, "not ASCII"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), 400, "no HTTP request"),
    ] {
        let refusal = refusal(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(refusal.status().0, status, "{text:?}: {refusal:?}");
        assert!(refusal.reason().contains(why), "{text:?}: {refusal:?}");
    }
}

/// Byte by byte, every line of a request is looked at once: what comes in small records must not cost more.
#[test]
fn small_pieces_cost_no_more_than_large_ones() {
    let trailers = format!("0\r\nX: {}", "x".repeat(REQUEST_HEAD - 100));
    let header = format!("X: {}\r\n", "x".repeat(REQUEST_HEAD - 100));
    for request in [post("Transfer-Encoding: chunked\r\n", &trailers), post(&header, "")] {
        let start = std::time::Instant::now();
        (0..20).for_each(|_| drop(steps(&request, 1)));
        assert!(start.elapsed().as_secs() < 5, "{:?} for 20 times {} bytes", start.elapsed(), request.len());
    }
}

#[test]
fn a_refusal_is_a_whole_answer() {
    let answer = String::from_utf8(refusal(b"\0").to_bytes()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(head.ends_with("Connection: close"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["status"], &body["errormessage"]), (&"failed".into(), &"this is no HTTP request".into()));
    assert_eq!(Refusal::timed_out().status().0, 408);
}

/// Whatever comes: no panic, bounded memory, the same in pieces as at once, and tiny_http understands
/// every request that is given out as exactly one, with the same body.
#[test]
fn mutated_requests_are_refused_or_understood_like_tiny_http_does() {
    let seeds = [
        post("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 13\r\n", "mappingid=all"),
        post("Transfer-Encoding: chunked\r\n", "5\r\nmappi\r\n8;a=b\r\nngid=all\r\n0\r\nA: b\r\n\r\n"),
        post("Expect: 100-continue\r\nConnection: close\r\nContent-Length: 4\r\n", "a=bc"),
        b"GET /metrics HTTP/1.0\r\nAuthorization: Bearer x\r\n\r\n".to_vec(),
    ];
    let path = std::env::temp_dir().join(format!("connector-{}", uuid::Uuid::new_v4()));
    let server = std::mem::ManuallyDrop::new(
        tiny_http::Server::from_listener(UnixListener::bind(&path).unwrap(), None).unwrap(),
    );
    let (mut random, mut given_out) = (Random::new(7), 0);
    for round in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            mutate(&mut bytes, &seeds, &mut random);
        }
        let whole = steps(&bytes, usize::MAX);
        let pieces = steps(&bytes, 1 + random.below(20));
        let but_continue = |steps: &[Step]| steps.iter().filter(|step| **step != Step::Continue).count();
        assert_eq!(but_continue(&whole), but_continue(&pieces), "{:?}", String::from_utf8_lossy(&bytes));
        for step in whole {
            match step {
                Step::Request { bytes, .. } if round % 10 == 0 => {
                    given_out += 1;
                    understood_by(&server, &path, &bytes);
                }
                _ => {}
            }
        }
    }
    std::fs::remove_file(path).unwrap();
    assert!(given_out > 100, "only {given_out} requests came through");
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\0",
        b"\xff",
        b"0\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.1",
        b"\t",
    ];
    let at = random.below(bytes.len().max(1));
    match random.below(5) {
        0 if at < bytes.len() => bytes[at] = random.next() as u8,
        1 => bytes.truncate(at),
        2 if at < bytes.len() => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
        3 => bytes.extend_from_slice(&seeds[random.below(seeds.len())]),
        _ => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
    }
}

fn understood_by(server: &tiny_http::Server, path: &std::path::Path, bytes: &[u8]) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut request = server.recv_timeout(std::time::Duration::from_secs(10)).unwrap().expect(&text);
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    assert!(bytes.ends_with(&[b"\r\n\r\n", &body[..]].concat()), "{text}: {body:?}");
    assert!(text.starts_with(&format!("{} {} HTTP/1.1\r\n", request.method(), request.url())), "{text}");
    request.respond(tiny_http::Response::from_string("ok")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{text}: {answer}");
    assert!(server.try_recv().unwrap().is_none(), "{text}");
}
