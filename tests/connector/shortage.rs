//! All relay buffers in use: who waits for one goes on when one comes back, and the API has its own.

use crate::harness::{
    AgentProgram, Daemon, Dial, Heard, Mapping, Mode, PATIENCE, Payload, Peer, PortBlock, Random, SILENCE, Service,
    Setup, for_both_modes, for_both_versions, join, number, private_mapping, public_mapping, seed, wait_until,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const HONEST: [u8; 4] = [127, 0, 0, 1];
const PAUSING: [u8; 4] = [127, 0, 0, 3];
const CROWD: [u8; 4] = [127, 0, 0, 2];

/// An agent and its user, who calls from there.
fn pair_from(daemon: &Daemon, mapping: &Mapping, address: [u8; 4]) -> (Peer, Peer) {
    let dial = |port| daemon.dial(port).small_buffers();
    let agent = dial(mapping.ports[0]).connect().expect("a connection");
    agent.authorize(mapping, 0);
    let user = dial(mapping.ports[1]).from(address).connect().expect("a connection");
    join(&agent, &user);
    (agent, user)
}

#[test]
fn slow_downloads_all_finish_with_half_as_many_buffers() {
    const SIZE: usize = 1_500_000;
    let daemon = Setup::new(Mode::Tls).set("buffers", 8).start();
    let mapping = daemon.add(&public_mapping(16, 0));
    let pairs: Vec<_> = (0..16).map(|_| daemon.pair(&mapping)).collect();
    thread::scope(|scope| {
        for (seed, (agent, user)) in pairs.iter().enumerate() {
            scope.spawn(move || {
                Payload::new(seed as u64).send(agent, SIZE as u64);
                agent.finish();
            });
            scope.spawn(move || {
                let mut got = 0;
                loop {
                    match user.hear(PATIENCE) {
                        Heard::Message(bytes) => got += bytes.len(),
                        end => break assert!(got == SIZE, "{got} of {SIZE} bytes, then {end:?}"),
                    }
                    // A slow reader.
                    thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
}

/// Who holds a buffer and takes nothing is ended after 10 s; until then all others may have to wait.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);

/// Bytes that a user sends before they have come back: less than the kernels hold, or the service would wait for its
/// reader, and stop reading.
const AHEAD: usize = 256 * 1024;

/// What somebody does with a service that sends everything back, as long as the test runs.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Sends as much as is taken, and reads it slowly.
    Bulk,
    /// Sends a little, and waits for it.
    Talk,
    /// Sends as much as is taken, and soon reads no more.
    Stop,
}

impl Habit {
    fn follow(self, peer: &Peer, mut random: Random, running: &AtomicBool) {
        let is_running = || running.load(Ordering::Relaxed);
        if let Self::Talk = self {
            while is_running() {
                let message = vec![b'm'; 1 + random.below(2000)];
                peer.send(&message);
                assert!(peer.hears(&message, GOES_ON_WITHIN), "no answer for {GOES_ON_WITHIN:?}");
                thread::sleep(Duration::from_millis(random.below(20) as u64));
            }
            return;
        }
        let mut chunks = random.fork();
        let (ahead, most) = (AtomicUsize::new(0), if let Self::Stop = self { usize::MAX } else { AHEAD });
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut sent = Ok(true);
                // Who stops is ended.
                while is_running() && sent.is_ok() {
                    let may_send = matches!(sent, Ok(true)) && ahead.load(Ordering::Relaxed) < most;
                    let chunk = if may_send { 1 + chunks.below(30_000) } else { 0 };
                    ahead.fetch_add(chunk, Ordering::Relaxed);
                    sent = peer.try_send(&vec![b'b'; chunk], Duration::from_millis(50));
                    if !may_send {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let mut left = if let Self::Stop = self { random.below(200_000) } else { usize::MAX };
            while is_running() && left > 0 {
                match peer.hear(GOES_ON_WITHIN) {
                    Heard::Message(bytes) => {
                        left = left.saturating_sub(bytes.len());
                        ahead.fetch_sub(bytes.len(), Ordering::Relaxed);
                    }
                    other => panic!("{other:?} within {GOES_ON_WITHIN:?}"),
                }
                thread::sleep(Duration::from_millis(random.below(8) as u64));
            }
        });
    }
}

/// `SHORTAGE_SEED`, `SHORTAGE_MILLISECONDS` for each version, and how many readers stop: `SHORTAGE_STOPPING`.
#[test]
fn whoever_reads_goes_on_with_few_buffers_in_all_kinds_of_sessions() {
    let seed = seed("SHORTAGE_SEED");
    let time = Duration::from_millis(number("SHORTAGE_MILLISECONDS", 300));
    let stopping = number("SHORTAGE_STOPPING", 0) as usize;
    println!("SHORTAGE_SEED={seed}");
    for_both_versions(|mode, version| {
        let mut random = Random::new(seed);
        let buffers = 2 + 2 * random.below(4);
        let daemon = Setup::new(mode).set("buffers", buffers).start();
        let service = Service::echo();
        let [public, private] = [public_mapping(12, 0), private_mapping(12, 0)].map(|it| daemon.add(&it));
        let agent = |mapping, side| AgentProgram::new(&daemon, mapping, side).speaking(version);
        let ports = PortBlock::reserve();
        let local = ports.api();
        let _agents = [
            agent(&public, 0).exposing(service.port, 12).start(),
            agent(&private, 0).exposing(service.port, 12).start(),
            agent(&private, 1).listening(local, 12).start(),
        ];
        let habits = [Habit::Bulk; 6].into_iter().chain([Habit::Talk; 4]).chain([Habit::Stop].repeat(stopping));
        let sessions: Vec<_> = habits
            .map(|habit| {
                let dial = match random.below(2) {
                    0 => daemon.dial(public.ports[1]).from(*random.any(&[HONEST, PAUSING, CROWD])),
                    _ => Dial::new(local, None),
                };
                let dial = if random.below(2) == 0 { dial.small_buffers() } else { dial };
                (dial.connect().expect("a connection"), habit, random.fork())
            })
            .collect();
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            let running = &running;
            for (peer, habit, random) in sessions {
                scope.spawn(move || habit.follow(&peer, random, running));
            }
            thread::sleep(time);
            running.store(false, Ordering::Relaxed);
        });
    });
}

#[test]
fn slow_readers_that_hold_all_buffers_do_not_silence_the_api() {
    let daemon = Setup::new(Mode::Tls).set("buffers", 4).start();
    let mapping = daemon.add(&public_mapping(20, 0));
    let pairs: Vec<_> = (0..8).map(|_| pair_from(&daemon, &mapping, CROWD)).collect();
    thread::scope(|scope| {
        for (agent, _) in &pairs {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
        }
    });
    // One is for others.
    let status = daemon.controller().status("all");
    assert_eq!((&status["buffers"], &status["maxbuffers"]), (&3.into(), &4.into()));
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(daemon.controller().status("all")["status"], "running");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "20 answers took {:?}", start.elapsed());
}

#[test]
fn a_crowd_that_takes_a_little_now_and_then_gives_way_before_one_that_pauses() {
    let daemon = Setup::new(Mode::Tls).set("buffers", 8).start();
    let mapping = daemon.add(&public_mapping(20, 0));
    let (pausing_agent, pausing) = pair_from(&daemon, &mapping, PAUSING);
    Payload::new(1).send_until_stalled(&pausing_agent);
    let crowd: Vec<_> = (0..12).map(|_| pair_from(&daemon, &mapping, CROWD)).collect();
    let (agent, user) = pair_from(&daemon, &mapping, HONEST);
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        for (agent, user) in &crowd {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
            // Less than a record in ten seconds, but never nothing.
            scope.spawn(|| {
                for _ in 0..160 {
                    if !running.load(Ordering::Relaxed) || !user.skip_raw(500).is_ok_and(|count| count > 0) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(500));
                }
            });
        }
        let sending = scope.spawn(|| Payload::new(10).send(&agent, 4 << 20));
        let start = Instant::now();
        Payload::new(10).receive(&user, 4 << 20);
        assert!(start.elapsed() < Duration::from_secs(40), "it took {:?}", start.elapsed());
        sending.join().expect("it was sent");
        // The crowd holds what it can get until it is ended: its own others wait.
        // The log names a user of it or an agent.
        let is_ended = || daemon.log().contains("the stalled connection of");
        wait_until("the crowd gives way", Duration::from_secs(40), is_ended);
        running.store(false, Ordering::Relaxed);
    });
    let log = daemon.log();
    assert!(!log.contains("the stalled connection of 127.0.0.3:"), "{log}");
    // Nor was it the one that reads.
    agent.send(b"more");
    user.expect(b"more");
    // It was no more than slow: what was sent for it is still coming.
    assert!(matches!(pausing.hear(PATIENCE), Heard::Message(_)));
}

#[test]
fn small_messages_go_on_while_a_crowd_of_slow_readers_waits_for_buffers() {
    for_both_modes(|mode| {
        let daemon = Setup::new(mode).set("buffers", 8).start();
        let [crowded, mapping] = [20, 3].map(|agents| daemon.add(&public_mapping(agents, 0)));
        let (agent, user) = pair_from(&daemon, &mapping, HONEST);
        let crowd: Vec<_> = (0..12).map(|_| pair_from(&daemon, &crowded, CROWD)).collect();
        thread::scope(|scope| {
            for (agent, _) in &crowd {
                scope.spawn(|| Payload::new(9).send_until_stalled(agent));
            }
        });
        // Ten seconds after the beginning of this some of the crowd will be ended.
        let start = Instant::now();
        for _ in 0..20 {
            user.send(b"question");
            agent.expect(b"question");
            agent.send(b"answer");
            user.expect(b"answer");
        }
        let (agent, user) = pair_from(&daemon, &mapping, HONEST);
        agent.send(b"answer");
        user.expect(b"answer");
        assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    });
}

#[test]
fn a_user_that_waits_for_a_buffer_is_not_closed_as_if_no_agent_were_there() {
    // So few that none are set aside.
    let daemon = Setup::new(Mode::Tls).set("buffers", 2).start();
    let [crowded, mapping] = [4, 1].map(|agents| daemon.add(&public_mapping(agents, 0)));
    let crowd: Vec<_> = (0..4).map(|_| pair_from(&daemon, &crowded, CROWD)).collect();
    thread::scope(|scope| {
        for (agent, _) in &crowd {
            scope.spawn(|| Payload::new(9).send_until_stalled(agent));
        }
    });
    let (agent, user) = (daemon.agent(&mapping), daemon.user(&mapping));
    user.send(b"question");
    if agent.hear(SILENCE) == Heard::Silence {
        assert_eq!(user.hear(Duration::from_secs(6)), Heard::Silence, "it is closed after 5 s");
        // Who holds a buffer is ended after 10 s.
        agent.expect(b"question");
    }
    agent.send(b"answer");
    user.expect(b"answer");
    drop(crowd);
}
