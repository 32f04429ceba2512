//! The kernel has no descriptors, memory or ports for some seconds: who is connected notices nothing, others are served
//! within a second after, and nobody waits for it in a busy loop.
//!
//! `SHORTAGE_ROUNDS` says how many times in each mode, `SHORTAGE_SEED` when and how.

use crate::harness::{
    AgentProgram, Daemon, Faults, Field, Mapping, Mode, PATIENCE, Random, Service, Setup, StopAtLast, Version, call,
    for_both_versions, form, number, ping, private_mapping, public_mapping, seed, visit, wait_until,
};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 5;
/// How long a shortage lasts, milliseconds.
const LASTS: Range<usize> = 500..2500;
/// New connections are served this long after, at the latest: a second, and what a busy machine takes on top.
const RECOVERY: Duration = Duration::from_millis(2500);
/// An answer to someone who is connected takes so long at most, on a busy machine.
const GAP: Duration = Duration::from_millis(2000);
/// Of a processor, at most: the pings of this test take a tenth of it.
const BUSY: f64 = 0.4;

use Field::{Accept, Bind, Connect, Descriptor, Register, Socket};

/// What the kernel says, and from which calls.
const SHORTAGES: [(i32, &[Field]); 7] = [
    (libc::EMFILE, &[Socket, Accept, Descriptor]),
    (libc::ENFILE, &[Socket, Accept, Descriptor]),
    (libc::ENOMEM, &[Socket, Accept, Connect, Bind, Register]),
    (libc::ENOBUFS, &[Socket, Accept, Connect, Bind]),
    (libc::EADDRINUSE, &[Bind]),
    (libc::EADDRNOTAVAIL, &[Connect, Bind]),
    (libc::ENOSPC, &[Register]),
];

struct World {
    daemon: Daemon,
    agent: AgentProgram,
    /// The daemon's, and the agent's.
    faults: [Faults; 2],
    /// For sessions that go on, for callers during a shortage, for callers after it, and the agent's.
    steady: Mapping,
    during: Mapping,
    after: Mapping,
    exposed: Mapping,
    _echo: Service,
}

impl World {
    fn start(mode: Mode, version: Version) -> Option<Self> {
        let faults = [Faults::new()?, Faults::new()?];
        let mut daemon = Setup::new(mode).prepare();
        faults[0].arm(&mut daemon);
        daemon.start();
        let [steady, during, after, exposed] = [(); 4].map(|()| daemon.add_public(100));
        let echo = Service::echo();
        let agent = AgentProgram::new(&daemon, &exposed, 0).speaking(version).exposing(echo.port, 4);
        let agent = faults[1].arm_agent(agent).start();
        Some(Self { daemon, agent, faults, steady, during, after, exposed, _echo: echo })
    }

    /// Begins or ends (error 0) a shortage of one of the two or of both.
    fn set(&self, victims: &[usize], calls: &[Field], error: i32) {
        for &victim in victims {
            calls.iter().for_each(|&call| self.faults[victim].set(call, error.into()));
        }
    }

    fn cpu_times(&self) -> [Duration; 2] {
        [self.daemon.cpu_time(), self.agent.cpu_time()]
    }
}

/// Everybody who may come during a shortage: each is served or closed, and nobody left in silence.
fn come_meanwhile(world: &World, random: &mut Random) -> Duration {
    let start = Instant::now();
    let daemon = &world.daemon;
    let result = match random.below(4) {
        0 => visit(daemon, &world.during),
        1 => call(daemon, &world.exposed),
        2 => daemon.controller().try_post("/api/v2/status", "mappingid=all").map(drop),
        _ => {
            let mapping = form("mapping", &private_mapping(1, 0).to_string());
            daemon.controller().try_post("/api/v2/mapping/add", &mapping).map(|answer| {
                if answer.status == 200 {
                    let id = answer.json()["id"].as_str().expect("an id").to_owned();
                    let _ = daemon.controller().try_post("/api/v2/mapping/remove", &format!("mappingid={id}"));
                }
            })
        }
    };
    if let Err(error) = result {
        assert_ne!(error.kind(), ErrorKind::TimedOut, "left in silence");
    }
    start.elapsed()
}

#[test]
fn shortages_disturb_nobody_who_is_connected_and_are_over_within_a_second() {
    let (rounds, seed) = (number("SHORTAGE_ROUNDS", ROUNDS), seed("SHORTAGE_SEED"));
    println!("SHORTAGE_SEED={seed}");
    for_both_versions(|mode, version| {
        let Some(world) = World::start(mode, version) else { return };
        let mut random = Random::new(seed + mode as u64);
        let (stop, longest) = (AtomicBool::new(false), AtomicU64::new(0));
        let pairs: Vec<_> = (0..2).map(|_| world.daemon.pair(&world.steady)).collect();
        let caller = world.daemon.user(&world.exposed);
        caller.send(b"question");
        caller.expect(b"question");
        let slowest = thread::scope(|scope| {
            for (agent, user) in &pairs {
                let echo = |bytes: &[u8]| {
                    agent.expect(bytes);
                    agent.send(bytes);
                };
                let (stop, longest) = (&stop, &longest);
                scope.spawn(move || ping(user, echo, stop, longest));
            }
            scope.spawn(|| ping(&caller, |_| {}, &stop, &longest));
            // A failed assertion must not leave the others at it.
            let _stop = StopAtLast(&stop);
            (0..rounds)
                .map(|round| shortage(&world, &mut random, &format!("seed {seed}, {mode:?}, round {round}")))
                .max()
        });
        let longest = Duration::from_millis(longest.into_inner());
        println!(
            "{mode:?}, version {version:?}: {rounds} shortages, served again after {slowest:?}, longest answer meanwhile {longest:?}"
        );
        assert!(longest < GAP, "{longest:?}");
        assert!(
            rounds < ROUNDS || world.faults.iter().any(|faults| faults.get(Field::Failed) > 0),
            "nothing has failed"
        );
    });
}

#[test]
fn an_agent_that_had_no_descriptors_comes_within_a_second_after() {
    let Some(faults) = Faults::new() else { return };
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let echo = Service::echo();
    faults.set(Socket, libc::EMFILE.into());
    let agent = faults.arm_agent(AgentProgram::new(&daemon, &mapping, 0).exposing(echo.port, 2)).spawn();
    agent.wait_for("Too many open files");
    // Long enough for what would double its pauses.
    thread::sleep(Duration::from_secs(4));
    let cpu = agent.cpu_time();
    faults.set(Socket, 0);
    let end = Instant::now();
    agent.wait_for("Authorized by the Connector");
    assert!(end.elapsed() < RECOVERY, "{:?}", end.elapsed());
    assert!(cpu < Duration::from_secs(1), "{cpu:?}");
}

#[test]
fn a_controller_that_opens_all_ports_locks_out_nobody() {
    let daemon = Setup::new(Mode::Plain).descriptors(224).start();
    let wanted = form("mapping", &public_mapping(2, 0).to_string());
    let first = daemon.add_public(2);
    let mut count = 1;
    let refusal = loop {
        let answer = daemon.controller().post("/api/v2/mapping/add", &wanted);
        match answer.status {
            200 => count += 1,
            _ => break answer,
        }
    };
    assert!(refusal.status == 500 && refusal.body.contains("Too many open files"), "{refusal:?}");
    assert!((10..30).contains(&count), "{count}");
    // Other Controllers keep their connections, agents and users theirs.
    let held: Vec<_> = (0..20).map(|_| daemon.controller().connect().expect("a connection")).collect();
    let pairs: Vec<_> = (0..2).map(|_| daemon.pair(&first)).collect();
    assert_eq!(daemon.controller().status("all")["mappings"], count);
    daemon.controller().remove(&first);
    drop(daemon.add_public(1));
    drop((held, pairs));
    assert!(!daemon.log().contains("No more connections are accepted"), "{}", daemon.log());
}

/// One shortage. Returns how long it took after its end until everybody was served again.
fn shortage(world: &World, random: &mut Random, when: &str) -> Duration {
    let (error, calls) = *random.any(&SHORTAGES);
    let chosen: Vec<Field> = calls.iter().copied().filter(|_| random.below(3) > 0).collect();
    let calls = if chosen.is_empty() { calls.to_vec() } else { chosen };
    let victims: &[usize] = [&[0][..], &[1], &[0, 1]][random.below(3)];
    let what = format!("{when}: error {error} of {calls:?} at {victims:?}");
    let lasts = Duration::from_millis((LASTS.start + random.below(LASTS.len())) as u64);
    let (start, before) = (Instant::now(), world.cpu_times());
    world.set(victims, &calls, error);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (mut random, pause) = (random.fork(), random.below(lasts.as_millis() as usize) as u64);
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(pause));
                    (come_meanwhile(world, &mut random), Duration::from_millis(pause))
                })
            })
            .collect();
        thread::sleep(lasts);
        let busy = [0, 1].map(|it| (world.cpu_times()[it] - before[it]).as_secs_f64() / start.elapsed().as_secs_f64());
        world.set(victims, &calls, 0);
        assert!(busy.iter().all(|busy| *busy < BUSY), "{what}: {busy:?} of a processor");
        let after = serve_again(world, &what);
        for caller in callers {
            let (took, pause) = caller.join().expect("served or closed");
            assert!(pause + took < lasts + RECOVERY * 2, "{what}: one waited {took:?}");
        }
        wait_until(&format!("{what}: no port is left out"), PATIENCE, || {
            world.daemon.controller().status("all")["inactive"] == 0
        });
        after
    })
}

/// Whoever comes now must be served; returns how long the slowest of them waited.
fn serve_again(world: &World, what: &str) -> Duration {
    let daemon = &world.daemon;
    let new = || visit(daemon, &world.after);
    let api = || {
        let answer = daemon.controller().try_post("/api/v2/status", "mappingid=all")?;
        if answer.status == 200 { Ok(()) } else { Err(io::Error::other(format!("{answer:?}"))) }
    };
    let user_of_agent = || call(daemon, &world.exposed);
    type Visit<'a> = &'a (dyn Fn() -> io::Result<()> + Sync);
    let visits: [(&str, Visit); 3] =
        [("agent and user", &new), ("Controller", &api), ("user of the agent", &user_of_agent)];
    let took = thread::scope(|scope| {
        let visits = visits.map(|(who, visit)| {
            scope.spawn(move || {
                let start = Instant::now();
                visit().unwrap_or_else(|error| panic!("{what}: {who}: {error}"));
                (start.elapsed(), who)
            })
        });
        visits.map(|visit| visit.join().expect("it was served"))
    });
    let slowest = took.iter().max().expect("three").0;
    assert!(slowest < RECOVERY, "{what}: {took:?}");
    slowest
}
