//! A TCP tunnel through a private pipe: one agent listens, another one exposes a service.

use super::listening_port;
use crate::harness::{
    AgentProgram, Daemon, Dial, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Service, Setup, in_both_modes,
    wait_until,
};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// The versions of the pipe protocol that the two ends speak.
#[derive(Clone, Copy, Debug)]
struct Ends {
    listening: &'static str,
    exposing: &'static str,
}

const BOTH_2: Ends = Ends { listening: "2", exposing: "2" };

/// Both ends of version 2, a mixed pair each way, and both of version 1.
fn in_all_pairs(test: impl Fn(&mut Daemon, Ends) + Sync) {
    in_both_modes(|daemon| {
        for (listening, exposing) in [("2", "2"), ("1", "2"), ("2", "1"), ("1", "1")] {
            let ends = Ends { listening, exposing };
            eprintln!("{:?}, {ends:?}", daemon.mode);
            test(daemon, ends);
        }
    });
}

impl Ends {
    fn exposing(self, daemon: &Daemon, mapping: &Mapping, service: &Service) -> AgentProgram {
        AgentProgram::new(daemon, mapping, 1).exposing(service.port, 4).with(&["--protocol", self.exposing])
    }

    fn listening(self, daemon: &Daemon, mapping: &Mapping) -> AgentProgram {
        AgentProgram::new(daemon, mapping, 0).listening(listening_port(daemon), 4).with(&["--protocol", self.listening])
    }
}

/// A client of the listening end.
#[track_caller]
fn client(daemon: &Daemon) -> Peer {
    let mut peer = None;
    wait_until("the listening end listens", PATIENCE, || {
        peer = Dial::new(listening_port(daemon), None).connect().ok();
        peer.is_some()
    });
    peer.expect("the line above")
}

/// A message as a database sends it: a kind, a length, and text.
fn message(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(text.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(text);
    message
}

fn read_message(stream: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut text = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    stream.read_exact(&mut text)?;
    Ok((head[0], text))
}

/// Speaks first; answers each query with as many rows as it asks for, one write each, and the end of the result.
fn database(mut stream: TcpStream) {
    let mut input = BufReader::new(stream.try_clone().expect("a descriptor"));
    let _ = stream.write_all(&message(b'R', b"ready"));
    while let Ok((b'Q', query)) = read_message(&mut input) {
        let rows: usize = String::from_utf8_lossy(&query).parse().expect("a number");
        for row in 0..rows {
            let _ = stream.write_all(&message(b'D', format!("row {row}").as_bytes()));
        }
        let _ = stream.write_all(&message(b'C', &query));
    }
}

struct Reader<'a>(&'a Peer, Vec<u8>);

impl Reader<'_> {
    #[track_caller]
    fn expect(&mut self, expected: &[u8]) {
        while self.1.len() < expected.len() {
            self.1.extend(self.0.expect_some());
        }
        let got: Vec<u8> = self.1.drain(..expected.len()).collect();
        assert_eq!(got, expected);
    }
}

fn query(client: &Peer) {
    let mut reader = Reader(client, Vec::new());
    reader.expect(&message(b'R', b"ready"));
    for rows in (0..40).map(|i| i * 7 % 23) {
        client.send(&message(b'Q', rows.to_string().as_bytes()));
        for row in 0..rows {
            reader.expect(&message(b'D', format!("row {row}").as_bytes()));
        }
        reader.expect(&message(b'C', rows.to_string().as_bytes()));
    }
}

#[test]
fn small_messages_go_both_ways_in_several_sessions_at_once() {
    in_all_pairs(|daemon, ends| {
        let (service, mapping) = (Service::start(database), daemon.add_private(10));
        let _ends = [ends.exposing(daemon, &mapping, &service).start(), ends.listening(daemon, &mapping).start()];
        let daemon = &*daemon;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3).for_each(|_| query(&client(daemon))));
            }
        });
    });
}

#[test]
fn both_directions_are_busy_at_once() {
    in_all_pairs(|daemon, ends| {
        let (service, mapping) = (Service::echo(), daemon.add_private(4));
        let _ends = [ends.exposing(daemon, &mapping, &service).start(), ends.listening(daemon, &mapping).start()];
        let client = client(daemon);
        let total = if daemon.mode == Mode::Plain { 16 << 20 } else { 4 << 20 };
        thread::scope(|scope| {
            scope.spawn(|| Payload::new(1).send(&client, total));
            scope.spawn(|| Payload::new(1).receive(&client, total));
        });
    });
}

#[test]
fn a_client_that_comes_before_the_other_end_loses_nothing() {
    in_all_pairs(|daemon, ends| {
        let (service, mapping) = (Service::echo(), daemon.add_private(4));
        let _listening = ends.listening(daemon, &mapping).start();
        let client = client(daemon);
        client.send(b"said to nobody yet");
        client.expect_silence();
        let _exposing = ends.exposing(daemon, &mapping, &service).start();
        client.expect(b"said to nobody yet");
    });
}

/// What it has sent is not brought to the service once the other end comes: nobody would wait for the answer.
#[test]
fn a_client_that_is_reset_while_its_line_calls_leaves_the_line_to_the_next() {
    let daemon = Setup::new(Mode::Plain).start();
    let (service, mapping) = (Service::echo(), daemon.add_private(4));
    let agent = AgentProgram::new(&daemon, &mapping, 0).listening(listening_port(&daemon), 1).start();
    let first = client(&daemon);
    first.send(b"nobody waits for this");
    first.expect_silence();
    first.reset();
    let next = client(&daemon);
    next.send(b"somebody waits for this");
    let _exposing = BOTH_2.exposing(&daemon, &mapping, &service).start();
    next.expect(b"somebody waits for this");
    drop(agent);
}

#[test]
fn a_client_that_closes_its_sending_side_gets_the_whole_answer() {
    in_all_pairs(|daemon, ends| {
        let (service, mapping) = (Service::downloads(), daemon.add_private(4));
        let _ends = [ends.exposing(daemon, &mapping, &service).start(), ends.listening(daemon, &mapping).start()];
        let client = client(daemon);
        client.send(b"GET /7/1000000 HTTP/1.0\r\n\r\n");
        client.finish();
        assert!(client.everything().len() > 1_000_000);
    });
}

/// Whether it waits for an answer or is gone, TCP does not tell: it has its line for 10 s, not for ever.
#[test]
fn a_client_that_closes_its_sending_side_and_gets_no_answer_comes_to_an_end() {
    let daemon = Setup::new(Mode::Plain).start();
    let (reached, service_is_reached) = channel();
    let service = Service::start(move |mut stream| {
        let _ = stream.read_exact(&mut [0; 5]);
        let _ = reached.send(());
        thread::sleep(3 * PATIENCE);
    });
    let mapping = daemon.add_private(2);
    let _ends = [
        AgentProgram::new(&daemon, &mapping, 1).exposing(service.port, 1).start(),
        AgentProgram::new(&daemon, &mapping, 0).listening(listening_port(&daemon), 1).start(),
    ];
    let first = client(&daemon);
    first.send(b"hello");
    first.finish();
    assert!(service_is_reached.recv_timeout(PATIENCE).is_ok());
    assert!(matches!(first.hear(PATIENCE), Heard::Ended(_)), "it was left waiting for ever");
    let next = client(&daemon);
    next.send(b"hello");
    assert!(service_is_reached.recv_timeout(PATIENCE).is_ok(), "the line was not given back");
}

#[test]
fn a_client_of_a_service_that_refuses_sees_an_end() {
    in_all_pairs(|daemon, ends| {
        let (mut service, mapping) = (Service::echo(), daemon.add_private(4));
        service.stop();
        let _ends = [ends.exposing(daemon, &mapping, &service).start(), ends.listening(daemon, &mapping).start()];
        let client = client(daemon);
        client.send(b"anybody there?");
        client.expect_end();
    });
}

#[test]
fn clients_that_say_nothing_take_no_connection_from_those_that_come_next() {
    in_all_pairs(|daemon, ends| {
        let (reached, service_is_reached) = channel();
        // Says nothing, and hears nothing but the end.
        let service = Service::start(move |mut stream| {
            let _ = reached.send(());
            let _ = stream.read(&mut [0; 100]);
        });
        let mapping = daemon.add_private(2);
        let _ends = [
            AgentProgram::new(daemon, &mapping, 1)
                .exposing(service.port, 1)
                .with(&["--protocol", ends.exposing])
                .start(),
            AgentProgram::new(daemon, &mapping, 0)
                .listening(listening_port(daemon), 1)
                .with(&["--protocol", ends.listening])
                .start(),
        ];
        for round in 0..10 {
            let client = client(daemon);
            // A client waits for 5 s, and the pause would be longer than that by now.
            assert!(service_is_reached.recv_timeout(PATIENCE).is_ok(), "client {round} was turned away");
            drop(client);
        }
    });
}

#[test]
fn clients_that_leave_before_the_other_end_answers_take_no_connection_either() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_private(2);
        let listening = AgentProgram::new(daemon, &mapping, 0).listening(listening_port(daemon), 1);
        let _listening = listening.start();
        for _ in 0..8 {
            let is_there = || daemon.controller().status(&mapping.id)["freeport1"] == 1;
            wait_until("the connection is there", Duration::from_secs(5), is_there);
            let client = client(daemon);
            client.finish();
            client.expect_end();
        }
    });
}

#[test]
fn clients_that_wait_push_out_their_own_address_and_no_other() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_private(4);
    let _listening = BOTH_2.listening(&daemon, &mapping).start();
    let calling: Vec<Peer> = (0..4).map(|_| client(&daemon)).collect(); // they have all the lines there are
    let waiting = client(&daemon);
    let dial = Dial::new(listening_port(&daemon), None).from([127, 0, 0, 2]);
    let crowd: Vec<Peer> = (0..300).map(|_| dial.connect().expect("a connection")).collect();
    let ended = |peer: &Peer| matches!(peer.hear(Duration::from_millis(1)), Heard::Ended(_));
    wait_until("the crowd pushes out its own", PATIENCE, || ended(&crowd[0]));
    assert!(!ended(&waiting) && !calling.iter().any(ended));
}

#[test]
fn either_end_may_be_killed_and_come_back() {
    in_all_pairs(|daemon, ends| {
        let (service, mapping) = (Service::echo(), daemon.add_private(8));
        let mut ends = [ends.exposing(daemon, &mapping, &service).start(), ends.listening(daemon, &mapping).start()];
        for end in [0, 1, 0, 1] {
            let before = client(daemon);
            before.send(b"hello");
            before.expect(b"hello");
            ends[end].kill();
            before.expect_end();
            ends[end].respawn();
            let after = client(daemon);
            after.send(b"hello again");
            after.expect(b"hello again");
        }
    });
}

#[test]
fn a_half_closed_client_gives_way_as_soon_as_its_time_is_over() {
    for version in ["1", "2"] {
        gives_way(version);
    }
}

fn gives_way(version: &'static str) {
    let daemon = Setup::new(Mode::Plain).start();
    let service = Service::start(|mut stream| {
        let _ = stream.read(&mut [0]);
        for _ in 0..4 {
            let _ = stream.write_all(b".");
            thread::sleep(Duration::from_millis(60)); // a slow answer: each byte puts the deadline off
        }
        let _ = stream.read_to_end(&mut Vec::new());
        thread::sleep(PATIENCE);
    });
    // With a place for one more it would be asked for.
    let mapping = daemon.add_private(if version == "1" { 4 } else { 1 });
    let ends = Ends { listening: version, exposing: version };
    let _exposing = ends.exposing(&daemon, &mapping, &service).start();
    let mut delays = Vec::new();
    for _ in 0..6 {
        let listening = AgentProgram::new(&daemon, &mapping, 0).listening(listening_port(&daemon), 1);
        let mut listening = listening.with(&["--protocol", version]).start();
        let first = client(&daemon);
        first.send(b"x");
        first.finish();
        first.expect(b".");
        let waiting = client(&daemon);
        // On a busy machine the rest of the answer may come too late.
        let mut last = Instant::now();
        while let Heard::Message(_) = first.hear(PATIENCE) {
            last = Instant::now();
        }
        delays.push(last.elapsed());
        drop(waiting);
        listening.kill();
    }
    // Two may be late because the machine is busy; a deadline that waits for the next second makes most of them late.
    delays.sort();
    assert!(delays[3] < Duration::from_millis(500), "took {delays:?} instead of 200 ms");
}
