//! Limits that are reached: who has to go, and who keeps its place (docs/limits.md, "Fairness").

use crate::harness::frames::{NOBODY, OPEN, PING, PONG};
use crate::harness::{
    Controller, Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, SILENCE, Setup, for_both_modes, join, post,
    wait_until,
};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const CROWD: [u8; 4] = [127, 0, 0, 2];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 3];

/// A connection that says nothing, not even a ClientHello.
fn silent(daemon: &Daemon, port: u16, from: [u8; 4]) -> Peer {
    daemon.dial(port).from(from).without_tls().connect().expect("a connection")
}

/// Says that it is closed by the daemon.
fn has_ended(peer: &Peer) -> bool {
    matches!(peer.hear(Duration::from_millis(1)), Heard::Ended(_))
}

fn connections(daemon: &Daemon) -> u64 {
    daemon.controller().status("all")["connections"].as_u64().expect("a number")
}

#[test]
fn silent_connections_of_one_address_lock_nobody_out_at_the_limit() {
    for_both_modes(|mode| {
        let daemon = Setup::new(mode).set("connections", 200).start();
        let mappings: Vec<Mapping> = (0..4).map(|_| daemon.add_public(4)).collect();
        let (agent, user) = daemon.pair(&mappings[0]);
        // 64 unauthenticated at each of four ports, and as many silent users as there may be.
        let ports = mappings.iter().flat_map(|mapping| mapping.ports);
        let crowd: Vec<Peer> = ports.flat_map(|port| [port; 80]).map(|port| silent(&daemon, port, CROWD)).collect();
        wait_until("the limit is reached", PATIENCE, || connections(&daemon) >= 180);
        for mapping in &mappings[1..] {
            let start = Instant::now();
            let (agent, user) = daemon.pair(mapping);
            agent.send(b"answer");
            user.expect(b"answer");
            assert!(start.elapsed() < 5 * SECOND, "an agent and a user waited {:?}", start.elapsed());
        }
        agent.send(b"still here");
        user.expect(b"still here");
        assert!(connections(&daemon) <= 200);
        assert!(daemon.log().contains("limit of 200 connections"), "{}", daemon.log());
        drop(crowd);
    });
}

#[test]
fn agents_and_joined_users_are_not_closed_for_newcomers() {
    let daemon = Setup::new(Mode::Plain).set("connections", 32).start();
    let mapping = daemon.add_public(8);
    let pairs: Vec<_> = (0..6).map(|_| daemon.pair(&mapping)).collect();
    let free = daemon.agent(&mapping);
    let crowd: Vec<Peer> = (0..300).map(|i| silent(&daemon, mapping.ports[i % 2], CROWD)).collect();
    wait_until("the crowd has been taken in", PATIENCE, || has_ended(&crowd[250]));
    for (agent, user) in &pairs {
        agent.send(b"still here");
        user.expect(b"still here");
    }
    free.expect_silence();
}

/// It has a deadline, as silent users do, and an earlier one.
#[test]
fn an_agent_that_calls_is_not_closed_for_newcomers() {
    let daemon = Setup::new(Mode::Plain).set("connections", 32).start();
    let (private, public) = (daemon.add_private(2), daemon.add_public(2));
    let caller = daemon.caller(&private, 0);
    caller.send(OPEN, 1, NOBODY);
    let crowd: Vec<Peer> = (0..60).map(|_| silent(&daemon, public.ports[1], [127, 0, 0, 1])).collect();
    wait_until("some had to go", PATIENCE, || crowd.iter().any(has_ended));
    caller.send(PING, 0, b"");
    caller.expect_besides_want(PONG, 0);
}

#[test]
fn the_last_connections_are_set_aside_for_agents() {
    let daemon = Setup::new(Mode::Plain).set("connections", 64).start();
    let mapping = daemon.add_public(4);
    let users: Vec<Peer> = (0..60).map(|i| silent(&daemon, mapping.ports[1], [127, 0, 1, i])).collect();
    wait_until("60 users are there", PATIENCE, || connections(&daemon) == 60);
    let agents: Vec<Peer> = (0..4).map(|_| daemon.agent(&mapping)).collect();
    assert_eq!(connections(&daemon), 64);
    assert!(!users.iter().any(has_ended), "a user was closed for an agent although there was room");
    // The next user takes the place of another one, and not an agent's.
    let newest = daemon.user(&mapping);
    join(&agents[0], &newest);
    wait_until("a user was closed for another", PATIENCE, || users.iter().any(has_ended));
    assert_eq!(agents[1].hear(SILENCE), Heard::Silence);
}

#[test]
fn one_address_does_not_get_the_last_connections_for_its_agents() {
    let daemon = Setup::new(Mode::Plain).set("connections", 32).start();
    let mapping = daemon.add_public(100);
    let agent = |from| {
        let agent = daemon.dial(mapping.ports[0]).from(from).connect().expect("a connection");
        agent.send(mapping.passcodes[0].as_bytes());
        agent
    };
    let many: Vec<Peer> = (0..30).map(|_| agent(CROWD)).collect();
    many.iter().for_each(|agent| agent.expect_message(b"AUTHORIZED"));
    agent(CROWD).expect_end();
    agent(ELSEWHERE).expect_message(b"AUTHORIZED");
}

#[test]
fn users_that_wait_push_out_their_own_address_and_no_other() {
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(1);
    let user = |from| {
        let user = daemon.dial(mapping.ports[1]).from(from).connect().expect("a connection");
        user.send(b"hello");
        user
    };
    let honest = user(ELSEWHERE);
    let crowd: Vec<Peer> = (0..300).map(|_| user(CROWD)).collect();
    wait_until("the crowd pushes out its own", PATIENCE, || has_ended(&crowd[0]));
    let late = user([127, 0, 0, 4]);
    assert!(!has_ended(&honest) && !has_ended(&late));
    // Who has waited longest is next, whatever crowd stands behind it.
    daemon.agent(&mapping).expect(b"hello");
    honest.expect_end();
}

/// An agent that serves one user after the other: it closes, pauses for a second, and dials again.
fn serve_with_pauses(daemon: &Daemon, mapping: &Mapping, running: &AtomicBool) {
    let mut agent = Some(daemon.agent(mapping));
    while running.load(Ordering::Relaxed) {
        let Some(peer) = &agent else {
            agent = Some(daemon.agent(mapping));
            continue;
        };
        match peer.hear(SECOND / 10) {
            Heard::Message(question) => {
                peer.send(&question);
                peer.finish();
            }
            Heard::Silence => continue,
            Heard::Ended(_) => {}
        }
        agent = None;
        thread::sleep(SECOND); // as the client in the field does
    }
}

#[test]
fn two_hundred_users_at_once_are_served_by_sixty_agents_that_pause() {
    // Of TLS only the number of handshakes would be different, which a debug build cannot do in time.
    let daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(60);
    let running = AtomicBool::new(true);
    let (served, longest) = (AtomicUsize::new(0), Mutex::new(Duration::ZERO));
    thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| serve_with_pauses(&daemon, &mapping, &running));
        }
        wait_until("all agents are there", PATIENCE, || daemon.controller().status(&mapping.id)["free"] == 60);
        let users: Vec<_> = (0..200)
            .map(|_| {
                scope.spawn(|| {
                    let (user, start) = (daemon.user(&mapping), Instant::now());
                    user.send(b"question");
                    if user.hear(PATIENCE) == Heard::Message(b"question".to_vec()) {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut longest = longest.lock().expect("no panic under this lock");
                    *longest = longest.max(start.elapsed());
                })
            })
            .collect();
        users.into_iter().for_each(|user| user.join().expect("a user"));
        running.store(false, Ordering::Relaxed);
    });
    println!("{served:?} of 200 served, the last after {longest:?}");
    assert_eq!(served.into_inner(), 200);
}

#[test]
fn who_asked_first_is_served_first_even_if_there_was_no_buffer() {
    // Over TLS a user's first record needs a buffer on its way to the agent. A slow reader has the only one.
    let daemon = Setup::new(Mode::Tls).set("buffers", 2).start();
    let (sender, slow) = daemon.narrow_pair(&daemon.add_public(1));
    let mapping = daemon.add_public(2);
    Payload::new(1).send_until_stalled(&sender);
    let agent = daemon.agent(&mapping);
    let ask = |question: &[u8]| {
        let user = daemon.user(&mapping);
        user.send(question);
        user.expect_silence();
        user
    };
    let first = ask(b"first");
    if agent.hear(SILENCE) != Heard::Silence {
        return; // It needed none: all the better.
    }
    agent.finish();
    agent.expect_end();
    let second = ask(b"second");
    let agent = daemon.agent(&mapping);
    drop((sender, slow));
    agent.expect(b"first");
    drop((first, second));
}

#[test]
fn outsiders_are_told_so_and_take_no_controllers_place() {
    for_both_modes(|mode| {
        let mut daemon = Setup::new(mode).set("controllers", json!(["127.0.0.3"])).prepare();
        daemon.spawn();
        let status = post("/api/v2/status", "mappingid=all");
        let listed = Controller { dial: daemon.dial(daemon.ports.api()).from(ELSEWHERE) };
        wait_until("the API answers", PATIENCE, || listed.try_post("/api/v2/status", "mappingid=all").is_ok());
        let unlisted = Controller { dial: daemon.dial(daemon.ports.api()).from(CROWD) };
        let answer = unlisted.post("/api/v2/status", "mappingid=all");
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.json()["errormessage"], "your address 127.0.0.2 is not in `controllers`");
        wait_until("the log tells", PATIENCE, || daemon.log().contains("API connection from 127.0.0.2 refused"));

        // 32 Controllers with half a request each, and a crowd from outside.
        let half = |_| {
            let peer = daemon.dial(daemon.ports.api()).from(ELSEWHERE).connect().expect("a connection");
            peer.send(&status.as_bytes()[..20]);
            peer
        };
        let before = daemon.descriptors();
        let mut controllers: Vec<Peer> = (0..31).map(half).collect();
        let crowd: Vec<Peer> = (0..200).map(|_| silent(&daemon, daemon.ports.api(), CROWD)).collect();
        wait_until("the crowd is closed", PATIENCE, || crowd.iter().filter(|peer| has_ended(peer)).count() >= 190);
        // 31 Controllers, four unlisted, and a few for what was just accepted.
        let now = daemon.descriptors();
        assert!(now <= before + 31 + 4 + 8, "{before} descriptors became {now}");
        assert!(!controllers.iter().any(has_ended), "a Controller was closed for an unlisted");
        let last = controllers.pop().expect("31 of them");
        last.send(&status.as_bytes()[20..]);
        assert!(matches!(last.hear(PATIENCE), Heard::Message(bytes) if bytes.starts_with(b"HTTP/1.1 200")));
    });
}
