//! Abuse of every port while others work: Controllers are answered, agents let in, sessions go on, memory and
//! threads stay bounded.
//!
//! What is done to a port once, and what it is answered, stands in `hostile`; here crowds do it that never tire, and
//! what everybody else gets meanwhile is measured. The crowds come from other addresses: who shares the abusers'
//! shares their fate. The figures are printed (`--nocapture`). Those for people want `--release`, an idle machine,
//! `ABUSE_JUDGE_TIMES`, `ABUSE_SECONDS` (how long one measurement takes) and `ABUSE_RATE` (what is relayed, MB/s;
//! 0 = what can be).

use crate::harness::{Controller, Daemon, Dial, Heard, Mapping, PATIENCE, Peer, in_both_modes, post, request};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fmt, thread};

const STATUS: &str = "/api/v2/status";

/// With this in the environment the times are judged, too. Beside other tests on a busy machine that would be a
/// matter of luck: there it must only go on, and everybody be answered.
const JUDGE_TIMES: &str = "ABUSE_JUDGE_TIMES";
/// How long of a hundred Controllers and agents all but one wait, at most.
const P99: Duration = Duration::from_secs(1);
/// What one session relays, MB/s. Much less than it could: the abusers, the other tests and the daemon share two
/// processors or so, and it is not they who are measured.
const RATE: f64 = 2.0;
/// Least part of its throughput that the session keeps. What is promised (80 %) is measured by hand.
const KEPT: f64 = 0.5;
/// Measurements of one abuse until it must have kept that much: the other tests are noisy neighbours.
const TRIES: usize = 4;
/// Memory that all of the abuse may cost, KiB: 32 API connections with 96 KiB of a request each, and 450 strangers at
/// the other ports with 24 KiB each in a debug build.
const MEMORY_KIB: u64 = 16 * 1024;
/// The daemon's own, and those that write long answers.
const THREADS: u64 = 48;

/// Ends what waits for `running` to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What abusers do until `running` ends, again and again.
struct Abuse {
    name: &'static str,
    act: fn(&Abuser, &AtomicBool),
}

const ABUSES: [Abuse; 7] = [
    Abuse { name: "600 half-sent requests", act: send_half_requests },
    Abuse { name: "handshakes that are never finished", act: begin_handshakes },
    Abuse { name: "an endless header line", act: send_endless_header },
    Abuse { name: "an endless chunked body", act: send_endless_body },
    Abuse { name: "10000 requests a second", act: flood },
    Abuse { name: "answered clients that never hang up", act: never_hang_up },
    Abuse { name: "1000 connections without a byte", act: connect_silently },
];

/// Four do it at once.
const ABUSERS: u8 = 4;
/// Between two connections of one of them: at full speed the four would leave nobody else a processor.
const BREATH: Duration = Duration::from_millis(2);
/// Requests a second that one of them sends at most.
const FLOOD: f64 = 2500.0;

/// What the abusers know of the daemon.
struct Target<'a> {
    daemon: &'a Daemon,
    mapping: &'a Mapping,
    /// Connections made, or requests answered.
    count: AtomicU64,
}

/// One of the abusers, with an address of its own.
struct Abuser<'a> {
    target: &'a Target<'a>,
    address: [u8; 4],
}

impl Abuser<'_> {
    fn dial(&self, port: u16) -> Dial {
        self.target.daemon.dial(port).from(self.address)
    }

    fn api(&self) -> Dial {
        self.dial(self.target.daemon.ports.api())
    }

    /// Counts a connection that was made.
    fn count_and_breathe(&self) {
        self.target.count.fetch_add(1, Ordering::Relaxed);
        thread::sleep(BREATH);
    }

    /// Holds `most` connections that `open` makes, and makes those again that the daemon closes.
    fn hold(&self, most: usize, running: &AtomicBool, open: impl Fn(usize) -> Option<Peer>) {
        let mut held: Vec<Option<Peer>> = (0..most).map(|_| None).collect();
        while running.load(Ordering::Relaxed) {
            for (i, place) in held.iter_mut().enumerate() {
                if !running.load(Ordering::Relaxed) {
                    return;
                }
                if place.as_ref().is_none_or(|peer| peer.hear(Duration::from_millis(1)) != Heard::Silence) {
                    *place = open(i);
                    self.count_and_breathe();
                }
            }
        }
    }

    /// Sends `begin` and then `more`, for as long as the daemon takes it, on one connection after the other.
    fn pour(&self, begin: &str, more: &str, running: &AtomicBool) {
        while running.load(Ordering::Relaxed) {
            let Ok(peer) = self.api().connect() else { continue };
            self.count_and_breathe();
            let mut taken = peer.try_send(begin.as_bytes(), PATIENCE).is_ok();
            while taken && running.load(Ordering::Relaxed) {
                taken = peer.try_send(more.as_bytes(), Duration::from_millis(100)).unwrap_or(false);
            }
        }
    }
}

fn send_half_requests(abuser: &Abuser, running: &AtomicBool) {
    let whole = post(STATUS, "mappingid=all");
    abuser.hold(150, running, |i| {
        let peer = abuser.api().connect().ok()?;
        let length = 1 + i * 7 % (whole.len() - 1);
        peer.try_send(&whole.as_bytes()[..length], PATIENCE).ok()?;
        Some(peer)
    });
}

/// The beginning of a ClientHello, or of a passcode, at all ports.
fn begin_handshakes(abuser: &Abuser, running: &AtomicBool) {
    let Target { daemon, mapping, .. } = abuser.target;
    let ports = [daemon.ports.api(), mapping.ports[0], mapping.ports[1], daemon.ports.broker()];
    abuser.hold(150, running, |i| {
        let peer = abuser.dial(ports[i % ports.len()]).without_tls().connect().ok()?;
        peer.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").ok()?;
        Some(peer)
    });
}

fn send_endless_header(abuser: &Abuser, running: &AtomicBool) {
    abuser.pour(&format!("POST {STATUS} HTTP/1.1\r\nX-Long: "), &"x".repeat(8000), running);
}

fn send_endless_body(abuser: &Abuser, running: &AtomicBool) {
    let head = "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked";
    let begin = format!("POST {STATUS} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
    abuser.pour(&begin, &format!("1f40\r\n{}\r\n", "x".repeat(8000)), running);
}

fn flood(abuser: &Abuser, running: &AtomicBool) {
    let many = post(STATUS, "mappingid=nope").repeat(50);
    let (start, mut answered) = (Instant::now(), 0);
    while running.load(Ordering::Relaxed) {
        let Ok(mut connection) = (Controller { dial: abuser.api() }).connect() else { continue };
        let mut served = true;
        while served && running.load(Ordering::Relaxed) {
            served = connection.send(&many).is_ok() && (0..50).all(|_| connection.answer_within(PATIENCE).is_ok());
            abuser.target.count.fetch_add(50, Ordering::Relaxed);
            answered += 50;
            thread::sleep(Duration::from_secs_f64(f64::from(answered) / FLOOD).saturating_sub(start.elapsed()));
        }
    }
}

/// A connection a request, none of which the client ever closes.
fn never_hang_up(abuser: &Abuser, running: &AtomicBool) {
    let request = request("POST", STATUS, &["Connection: close"], "");
    let mut held = Vec::new();
    while running.load(Ordering::Relaxed) {
        let Ok(peer) = abuser.api().connect() else { continue };
        let _ = peer.try_send(request.as_bytes(), PATIENCE);
        abuser.count_and_breathe();
        held.push(peer);
        held.drain(..held.len().saturating_sub(2000));
    }
}

fn connect_silently(abuser: &Abuser, running: &AtomicBool) {
    abuser.hold(250, running, |_| abuser.api().without_tls().connect().ok());
}

/// Two ends of a session with steady traffic, until `running` ends.
fn relay_bulk(agent: &Peer, user: &Peer, relayed: &AtomicU64, running: &AtomicBool) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![b'x'; 16 * 1024];
            let seconds_a_chunk = match setting("ABUSE_RATE", RATE) {
                0.0 => 0.0,
                rate => chunk.len() as f64 / 1e6 / rate,
            };
            let start = Instant::now();
            for sent in 1.. {
                if !running.load(Ordering::Relaxed) {
                    break;
                }
                agent.send(&chunk);
                // Behind its time it does not sleep until it has caught up.
                thread::sleep(
                    Duration::from_secs_f64(seconds_a_chunk * f64::from(sent)).saturating_sub(start.elapsed()),
                );
            }
            agent.finish();
        });
        loop {
            match user.hear(PATIENCE) {
                Heard::Message(bytes) => drop(relayed.fetch_add(bytes.len() as u64, Ordering::Relaxed)),
                Heard::Ended(_) => return,
                Heard::Silence => panic!("the session stands still"),
            }
        }
    });
}

/// A Controller with a connection a request, and an agent that comes anew each time: the hardest to serve.
fn come_often(target: &Target, waits: &Mutex<Vec<Duration>>, running: &AtomicBool) {
    let note = |start: Instant| waits.lock().expect("no panic under this lock").push(start.elapsed());
    while running.load(Ordering::Relaxed) {
        let start = Instant::now();
        target.daemon.controller().status("all");
        note(start);
        let start = Instant::now();
        target.daemon.agent(target.mapping);
        note(start);
        thread::sleep(Duration::from_millis(10)); // their own business
    }
}

fn setting(name: &str, default: f64) -> f64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// How long one measurement takes.
fn slice() -> Duration {
    Duration::from_secs_f64(setting("ABUSE_SECONDS", 0.6))
}

/// Bytes a second that are relayed while this function sleeps.
fn rate(relayed: &AtomicU64) -> f64 {
    let (before, start) = (relayed.load(Ordering::Relaxed), Instant::now());
    thread::sleep(slice());
    (relayed.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}

/// What everybody else got while one abuse went on.
struct Outcome {
    quiet: f64,
    abused: f64,
    waits: Vec<Duration>,
    /// What the abusers got done.
    count: u64,
}

impl Outcome {
    fn kept(&self) -> f64 {
        self.abused / self.quiet
    }

    fn p99(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort();
        waits[(waits.len() * 99).div_ceil(100) - 1]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quiet, abused, waits, count } = self;
        let [quiet, abused] = [quiet, abused].map(|rate| rate / 1e6);
        let kept = self.kept() * 100.0;
        write!(f, "{abused:.1} of {quiet:.1} MB/s relayed ({kept:.0} %), ")?;
        write!(f, "p99 {:.1?} of {}, {count} times", self.p99(), waits.len())
    }
}

/// Measures without the abuse, with it, and without it again.
fn measure(abuse: &Abuse, target: &Target, relayed: &AtomicU64) -> Outcome {
    let (running, waits) = (AtomicBool::new(true), Mutex::default());
    target.count.store(0, Ordering::Relaxed);
    let before = rate(relayed);
    let abused = thread::scope(|scope| {
        let _stop = Stop(&running);
        for number in 0..ABUSERS {
            let abuser = Abuser { target, address: [127, 0, 0, 2 + number] };
            let running = &running;
            scope.spawn(move || (abuse.act)(&abuser, running));
        }
        scope.spawn(|| come_often(target, &waits, &running));
        thread::sleep(slice()); // the crowd gathers
        rate(relayed)
    });
    let after = rate(relayed);
    let waits = waits.into_inner().expect("no panic under this lock");
    Outcome { quiet: (before + after) / 2.0, abused, waits, count: target.count.load(Ordering::Relaxed) }
}

#[test]
fn abuse_of_any_kind_harms_nobody_else() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(20); // agents that come anew may overlap
        let (agent, user) = daemon.pair(&mapping);
        let target = Target { daemon, mapping: &mapping, count: AtomicU64::new(0) };
        let (relayed, running) = (AtomicU64::new(0), AtomicBool::new(true));
        let memory = daemon.resident_kib();
        thread::scope(|scope| {
            let _stop = Stop(&running);
            scope.spawn(|| relay_bulk(&agent, &user, &relayed, &running));
            for abuse in &ABUSES {
                expect_no_harm(abuse, &target, &relayed);
                let grown = daemon.resident_kib().saturating_sub(memory);
                assert!(grown < MEMORY_KIB, "{grown} KiB more after {}", abuse.name);
            }
        });
    });
}

fn expect_no_harm(abuse: &Abuse, target: &Target, relayed: &AtomicU64) {
    let (mut kept, mut p99) = (0.0, Duration::MAX);
    for _ in 0..TRIES {
        let outcome = measure(abuse, target, relayed);
        let threads = target.daemon.threads();
        println!(
            "{:?}, {}: {outcome}, {threads} threads, {} KiB",
            target.daemon.mode,
            abuse.name,
            target.daemon.resident_kib()
        );
        assert!(threads <= THREADS, "{threads} threads");
        (kept, p99) = (outcome.kept().max(kept), outcome.p99().min(p99));
        let timed = env::var_os(JUDGE_TIMES).is_none() || (kept >= KEPT && p99 < P99);
        if timed && outcome.abused > 0.0 && !outcome.waits.is_empty() {
            return;
        }
    }
    panic!("{}: {:.0} % relayed, p99 {p99:?} at best", abuse.name, kept * 100.0);
}
