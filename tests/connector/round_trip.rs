//! What goes in as payload comes out as payload, byte for byte: the property, tried with random payloads that are made
//! of the protocol's own words (docs/protocol.md, section 4).
//!
//! Another seed each time, which is printed; `ROUND_TRIP_SEED` repeats one, `ROUND_TRIPS` says how many sessions.

use crate::harness::{
    AgentProgram, Daemon, Dial, Mapping, Mode, PATIENCE, Peer, Random, Service, Setup, in_both_modes, in_both_versions,
    seed,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

/// Sessions of each test and mode.
const SESSIONS: u64 = 60;
/// The largest record.
const RECORD: usize = 16_384;

/// Whole sessions that have been taken for heartbeats, or could be.
const SUSPECTS: [&[u8]; 9] =
    [b"BEAT", b"BEATBEAT", b"BEATBEATBEAT", b"B", b"BEA", b"AUTHORIZED", b"DATA", b"DATABEAT", b"iofog/1 dev mode"];

/// The messages of one session, none of them empty.
fn session(random: &mut Random) -> Vec<Vec<u8>> {
    if random.below(3) == 0 {
        return vec![random.any(&SUSPECTS).to_vec()];
    }
    (0..1 + random.below(12)).map(|_| message(random)).collect()
}

fn message(random: &mut Random) -> Vec<u8> {
    let beats = |count| b"BEAT".repeat(count);
    match random.below(8) {
        0 => beats(1),
        1 => beats(2 + random.below(3)),
        2 => beats(RECORD / 4),
        3 => random.any(&SUSPECTS).to_vec(),
        4 => [beats(1 + random.below(5000)), letters(random, 3)].concat(),
        5 => [letters(random, 3), beats(1 + random.below(5000))].concat(),
        6 => letters(random, RECORD),
        _ => {
            let length = 1 + random.below(40);
            letters(random, length)
        }
    }
}

fn letters(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length).map(|_| *random.any(b"BEAT")).collect()
}

/// Sends the messages, with pauses between some so that they are read one by one.
fn say(from: &Peer, messages: &[Vec<u8>], random: &mut Random) {
    for message in messages {
        from.send(message);
        if random.below(4) == 0 {
            thread::sleep(Duration::from_millis(random.below(4) as u64));
        }
    }
}

/// One session over `near`, whose far end sends everything back.
#[track_caller]
fn there_and_back(near: &Peer, random: &mut Random) {
    let messages = session(random);
    let mut pauses = random.fork();
    thread::scope(|scope| {
        scope.spawn(|| say(near, &messages, &mut pauses));
        near.expect(&messages.concat());
    });
}

fn sessions(daemon: &Daemon) -> (u64, Random) {
    let seed = seed("ROUND_TRIP_SEED");
    println!("ROUND_TRIP_SEED={seed} ({:?})", daemon.mode);
    (crate::harness::number("ROUND_TRIPS", SESSIONS), Random::new(seed))
}

#[test]
fn through_a_public_pipe_and_our_agent() {
    in_both_versions(|daemon, version| {
        let (count, mut random) = sessions(daemon);
        let (service, mapping) = (Service::echo(), daemon.add_public(4));
        let agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).with(&["--heartbeat", "20"]);
        let _agent = agent.exposing(service.port, 4).start();
        (0..count).for_each(|_| there_and_back(&daemon.user(&mapping), &mut random));
    });
}

#[test]
fn through_a_tunnel_between_our_agents() {
    in_both_versions(|daemon, version| {
        let (count, mut random) = sessions(daemon);
        let (service, mapping) = (Service::echo(), daemon.add_private(4));
        let port = crate::agent::listening_port(daemon);
        let agent = |side| AgentProgram::new(daemon, &mapping, side).speaking(version).with(&["--heartbeat", "20"]);
        let _exposing = agent(1).exposing(service.port, 4).start();
        let _listening = agent(0).listening(port, 4).start();
        for _ in 0..count {
            there_and_back(&Dial::new(port, None).connect().expect("the listening end listens"), &mut random);
        }
    });
}

/// An agent as others write it: over TLS what it sends is records, in dev mode it marks where payload begins.
fn agent(daemon: &Daemon, mapping: &Mapping, side: usize) -> Peer {
    if daemon.mode == Mode::Tls {
        return daemon.agent_on(mapping, side);
    }
    let agent = daemon.stranger(mapping, side);
    agent.send(format!("iofog/1 dev mode{}", mapping.passcodes[side]).as_bytes());
    agent.expect(b"iofog/1 dev modeAUTHORIZED");
    agent
}

/// What such an agent says before its payload: heartbeats, which are answered until payload comes from us.
fn begin(daemon: &Daemon, agent: &Peer, beats: usize) {
    (0..beats).for_each(|_| agent.send(b"BEAT"));
    if daemon.mode == Mode::Plain {
        agent.send(b"DATA");
    }
}

/// Takes heartbeats up to the mark behind which payload begins.
#[track_caller]
fn hear_mark(agent: &Peer) {
    let mut word = Vec::new();
    while word != b"DATA" {
        word.clear();
        while word.len() < 4 {
            word.extend(agent.expect_up_to(4 - word.len()));
        }
        assert!(word == b"BEAT" || word == b"DATA", "{:?} before DATA", String::from_utf8_lossy(&word));
    }
}

/// Takes what the daemon says until `expected` is complete.
#[track_caller]
fn hear(daemon: &Daemon, agent: &Peer, expected: &[u8]) {
    if daemon.mode == Mode::Plain {
        hear_mark(agent);
    }
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let message = agent.expect_some();
        if daemon.mode == Mode::Tls {
            assert!(message != b"BEATBEAT", "agents in the field take {message:?} for heartbeats");
        }
        if daemon.mode == Mode::Plain || message != b"BEAT" {
            got.extend(message);
        }
    }
    assert!(got == expected, "{} bytes of {} came", got.len(), expected.len());
}

/// An agent sends `BEAT` by itself as a heartbeat and as nothing else: over TLS it has to cut such payload itself.
fn as_an_agent(daemon: &Daemon, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let cut = |message: &Vec<u8>| match &message[..] {
        b"BEAT" if daemon.mode == Mode::Tls => vec![b"BE".to_vec(), b"AT".to_vec()],
        _ => vec![message.clone()],
    };
    messages.iter().flat_map(cut).collect()
}

#[test]
fn between_an_agent_and_a_user() {
    in_both_modes(|daemon| {
        let (count, mut random) = sessions(daemon);
        let mapping = daemon.add_public(1);
        for _ in 0..count {
            let (agent, user) = (agent(daemon, &mapping, 0), daemon.user(&mapping));
            let [question, answer] = [session(&mut random), session(&mut random)];
            let [mut left, mut right] = [random.fork(), random.fork()];
            thread::scope(|scope| {
                scope.spawn(|| say(&user, &question, &mut left));
                hear(daemon, &agent, &question.concat());
                begin(daemon, &agent, random.below(3));
                scope.spawn(|| say(&agent, &as_an_agent(daemon, &answer), &mut right));
                user.expect(&answer.concat());
            });
            agent.finish();
            user.expect_clean_end();
        }
    });
}

#[test]
fn between_two_agents() {
    in_both_modes(|daemon| {
        let daemon = &*daemon;
        let (count, mut random) = sessions(daemon);
        let mapping = daemon.add_private(1);
        for _ in 0..count {
            let ends = [0, 1].map(|side| agent(daemon, &mapping, side));
            crate::harness::wait_until("both are joined", PATIENCE, || {
                daemon.controller().status(&mapping.id)["joined"] == 1
            });
            let said = [session(&mut random), session(&mut random)];
            let mut pauses = [random.fork(), random.fork()];
            let beats = random.below(3);
            thread::scope(|scope| {
                for (end, (said, pauses)) in ends.iter().zip(said.iter().zip(&mut pauses)) {
                    scope.spawn(move || {
                        begin(daemon, end, beats);
                        say(end, &as_an_agent(daemon, said), pauses);
                    });
                }
                hear(daemon, &ends[0], &said[1].concat());
                hear(daemon, &ends[1], &said[0].concat());
            });
            ends[0].finish();
            crate::harness::wait_until("both are gone", PATIENCE, || {
                let status = daemon.controller().status(&mapping.id);
                status["agentsport1"] == 0 && status["agentsport2"] == 0
            });
        }
    });
}

/// Segments with data that `stream` has received: tcpi_data_segs_in of <linux/tcp.h>, Linux 4.6.
fn segments(stream: &TcpStream) -> u32 {
    let (mut info, mut length) = ([0_u32; 40], 160);
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes into `info`, which is that long.
    let result = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
    };
    assert_eq!((result, length), (0, 160));
    info[38]
}

/// Who says both at once is woken once: it matters where connections come and go by the thousand.
#[test]
fn in_dev_mode_what_belongs_together_comes_in_one_segment() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(4);
    let mut agent = TcpStream::connect(("127.0.0.1", mapping.ports[0])).expect("a connection to the agents' port");
    agent.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    agent.write_all(format!("iofog/1 dev mode{}", mapping.passcodes[0]).as_bytes()).expect("a connection");
    let mut hear = |expected: &[u8]| {
        let mut got = vec![0; expected.len()];
        agent.read_exact(&mut got).expect("what the daemon says");
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
        segments(&agent)
    };
    assert_eq!(hear(b"iofog/1 dev modeAUTHORIZED"), 1);
    let user = daemon.user(&mapping);
    user.send(b"question");
    assert_eq!(hear(b"DATAquestion"), 2);
}

#[test]
fn in_dev_mode_the_preamble_is_answered_whatever_comes_of_the_passcode() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(4);
    let late = daemon.stranger(&mapping, 0);
    for (said, answer) in [("iofog/1 dev mode", "iofog/1 dev mode"), (&mapping.passcodes[0], "AUTHORIZED")] {
        late.send(said.as_bytes());
        late.expect(answer.as_bytes());
    }
    let wrong = daemon.stranger(&mapping, 0);
    wrong.send(b"iofog/1 dev mode36 bytes that are no passcode at all");
    wrong.expect(b"iofog/1 dev mode");
    wrong.expect_end();
}
