//! From start to end: what a restart, a crash, a busy port or a lack of descriptors does.

use crate::harness::{
    Controller, Daemon, Heard, Mapping, Mode, PATIENCE, Payload, Peer, Setup, for_both_modes, form, in_both_modes,
    join, public_mapping, wait_until,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn mappings_outlive_a_restart() {
    in_both_modes(|daemon| {
        let [public, private] = [daemon.add_public(2), daemon.add_private(1)];
        for _ in 0..2 {
            daemon.pair(&public);
            let [left, right] = [0, 1].map(|side| daemon.agent_on(&private, side));
            left.send(b"to the right");
            right.expect(b"to the right");
            assert_eq!(daemon.terminate().code(), Some(0));
            daemon.start();
            assert_eq!(daemon.controller().status("all")["mappings"], 2);
        }
        let next = daemon.add_public(1);
        assert!(next.ports.iter().all(|port| !public.ports.contains(port) && !private.ports.contains(port)));
    });
}

/// What was answered before the daemon was killed.
#[derive(Default)]
struct Answered {
    open: Vec<String>,
    removed: Vec<String>,
    /// Asked to be removed, never answered.
    in_doubt: Option<String>,
}

/// Adds and removes until the daemon is gone.
fn change_mappings(controller: &Controller, changes: &AtomicUsize) -> Answered {
    let mut answered = Answered::default();
    let add = form("mapping", &public_mapping(1, 0).to_string());
    loop {
        let Ok(answer) = controller.try_post("/api/v2/mapping/add", &add) else { return answered };
        answered.open.push(answer.json()["id"].as_str().expect("an id").to_owned());
        changes.fetch_add(1, Ordering::Relaxed);
        if answered.open.len() > 8 {
            let oldest = answered.open.remove(0);
            if controller.try_post("/api/v2/mapping/remove", &form("mappingid", &oldest)).is_err() {
                answered.in_doubt = Some(oldest);
                return answered;
            }
            answered.removed.push(oldest);
        }
    }
}

#[test]
fn what_was_answered_outlives_a_crash() {
    let mut daemon = Setup::new(Mode::Plain).start();
    for round in 0..6 {
        let changes = AtomicUsize::new(0);
        let controller = daemon.controller();
        let answered = thread::scope(|scope| {
            let changing = scope.spawn(|| change_mappings(&controller, &changes));
            wait_until("some changes", PATIENCE, || changes.load(Ordering::Relaxed) > 5 * round);
            daemon.kill();
            changing.join().expect("a list")
        });
        daemon.start();
        let stored: Value =
            serde_json::from_slice(&fs::read(daemon.path("configs.json")).expect("a file")).expect("JSON");
        let stored = stored["mappings"].as_array().expect("a list");
        let ids: HashSet<&str> = stored.iter().filter_map(|mapping| mapping["id"].as_str()).collect();
        for id in &answered.open {
            assert!(ids.contains(id.as_str()), "{id} was lost in round {round}");
            assert_eq!(daemon.controller().status(id)["public"], "Active");
        }
        assert!(answered.removed.iter().all(|id| !ids.contains(id.as_str())), "a removed mapping is back");
        for id in ids {
            daemon.controller().post("/api/v2/mapping/remove", &form("mappingid", id));
        }
        drop(answered.in_doubt); // either is right
    }
}

#[test]
fn remove_under_traffic_closes_everything() {
    for_both_modes(|mode| {
        // So few connections that what a round leaves behind is missing in the next.
        let daemon = Setup::new(mode).set("connections", 120).start();
        daemon.controller().remove(&daemon.add_public(1));
        let before = daemon.descriptors();
        for round in 0..4 {
            remove_under_traffic(&daemon, round);
            wait_until("all descriptors are closed", PATIENCE, || daemon.descriptors() <= before);
        }
    });
}

fn remove_under_traffic(daemon: &Daemon, round: u64) {
    let mapping = daemon.add_public(40);
    let mut pairs: Vec<_> = (0..20).map(|_| daemon.pair(&mapping)).collect();
    let idle = [daemon.agent(&mapping), daemon.user(&mapping), daemon.stranger(&mapping, 0)];
    let (agent, user) = pairs.pop().expect("20 of them");
    thread::scope(|scope| {
        for (agent, _) in &pairs {
            scope.spawn(|| while agent.try_send(&[0; 10_000], SECOND).is_ok_and(|taken| taken) {});
        }
        let mut received = Payload::new(round);
        scope.spawn(|| {
            let mut sent = Payload::new(round);
            while agent.try_send(&sent.take(1000), SECOND).is_ok_and(|taken| taken) {}
        });
        while received.position() < 100_000 {
            received.check(&user.expect_some());
        }
        daemon.controller().remove(&mapping);
        user.expect_end_at_last(PATIENCE);
    });
    for (agent, user) in &pairs {
        agent.expect_end_at_last(PATIENCE);
        user.expect_end_at_last(PATIENCE);
    }
    for peer in &idle {
        peer.expect_end();
    }
}

#[test]
fn what_is_still_being_delivered_goes_with_its_mapping() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(4);
        let before = daemon.descriptors();
        let (agent, _slow_user) = daemon.narrow_pair(&mapping);
        let (_slow_agent, user) = daemon.narrow_pair(&mapping);
        // More than the kernels take for a reader that reads nothing, less than the daemon holds for it.
        for (from, to_be_freed) in [(&agent, 1), (&user, 0)] {
            Payload::new(1).send(from, 60_000);
            from.finish();
            let status = || daemon.controller().status(&mapping.id);
            if daemon.mode == Mode::Tls || to_be_freed == 1 {
                wait_until("the session is over", PATIENCE, || status()["joined"] == to_be_freed);
            }
        }
        daemon.controller().remove(&mapping);
        wait_until("all is closed", SECOND, || daemon.descriptors() <= before - 2);
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(5);
        drop(daemon.pair(&mapping));
        let before = daemon.descriptors();
        for _ in 0..40 {
            let (agent, user) = daemon.pair(&mapping);
            agent.reset();
            user.expect_end();
            let (agent, user) = daemon.pair(&mapping);
            user.reset();
            agent.expect_end();
            daemon.agent(&mapping).reset();
            daemon.user(&mapping).finish();
            daemon.stranger(&mapping, 0).reset();
        }
        wait_until("all descriptors are closed", PATIENCE, || daemon.descriptors() <= before);
    });
}

#[test]
fn a_mapping_whose_port_is_taken_is_inactive_until_it_is_free() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_private(1);
    assert_eq!(daemon.terminate().code(), Some(0));
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, mapping.ports[0])).expect("free: the daemon has ended");
    daemon.start();
    let status = daemon.controller().status(&mapping.id);
    assert_eq!(status["private1"], "Inactive", "{status}");
    drop(taken);
    wait_until("the port is bound", PATIENCE, || daemon.controller().status(&mapping.id)["private1"] == "Active");
    let [left, right] = [0, 1].map(|side| daemon.agent_on(&mapping, side));
    left.send(b"to the right");
    right.expect(b"to the right");
    assert!(daemon.log().contains(&mapping.ports[0].to_string()), "the log does not tell which port");
}

#[test]
fn a_broken_configs_json_is_refused_and_left_alone() {
    let broken = [
        ("{\"mappings\":[{\"id\":\"x\",", "line 1"),
        ("{\n\"mappings\": 5}", "line 2"),
        ("", "line 1"),
        ("{\"mappings\":[]} trailing", "line 1"),
    ];
    for (content, place) in broken {
        let mut daemon = Setup::new(Mode::Plain).prepare();
        fs::write(daemon.path("configs.json"), content).expect("a file");
        daemon.spawn();
        let status = daemon.wait();
        let log = daemon.log();
        assert!(status.code().is_some_and(|code| code > 1), "{status} for {content:?}: {log}");
        for word in ["configs.json", place, "column"] {
            assert!(log.contains(word), "{log:?} without {word:?}");
        }
        assert_eq!(fs::read_to_string(daemon.path("configs.json")).expect("a file"), content);
    }
}

#[test]
fn the_originals_configs_json_is_kept() {
    let mut daemon = Setup::new(Mode::Plain).first_ports(4).prepare();
    let port = daemon.ports.mappings().0 + 10; // outside of today's ports
    let passcode = "9bb0a1cb-c356-45f3-9965-c090b6992364";
    let stored = json!({"mappings": [
        {"id": "ba07bfc1-5d81-435f-9ee5-0133e507f13f", "port1": port, "port2": port + 1,
         "maxconnectionsport1": 60, "maxconnectionsport2": 60, "passcodeport1": passcode, "passcodeport2": "",
         "heartbeatabsencethresholdport1": 200_000, "heartbeatabsencethresholdport2": 0},
        {"id": "fcec492d-5e94-421d-bf84-bfdf2a5d1128", "port1": 0, "port2": 0,
         "maxconnectionsport1": 0, "maxconnectionsport2": 0,
         "passcodeport1": "8eefbc7e-33dc-4233-b0c2-1cbeb243ee54", "passcodeport2": "",
         "heartbeatabsencethresholdport1": 0, "heartbeatabsencethresholdport2": 0},
    ]});
    fs::write(daemon.path("configs.json"), stored.to_string()).expect("a file");
    daemon.start();
    daemon.keep_secret(passcode);
    let mapping = Mapping {
        id: "ba07bfc1-5d81-435f-9ee5-0133e507f13f".into(),
        ports: [port, port + 1],
        passcodes: [passcode.into(), String::new()],
    };
    daemon.pair(&mapping);
    let added = daemon.add_public(1);
    let after: Value = serde_json::from_slice(&fs::read(daemon.path("configs.json")).expect("a file")).expect("JSON");
    let after = after["mappings"].as_array().expect("a list");
    assert_eq!(after.len(), 3);
    assert!(stored["mappings"].as_array().expect("a list").iter().all(|entry| after.contains(entry)), "{after:?}");
    assert!(after.iter().any(|entry| entry["id"] == added.id));
}

#[test]
fn a_change_that_cannot_be_saved_is_undone() {
    let daemon = Setup::new(Mode::Plain).start();
    let before = daemon.controller().status("all");
    fs::create_dir_all(daemon.path("configs.json").join("in the way")).expect("a folder where the file should be");
    let answer = daemon.controller().post("/api/v2/mapping/add", &form("mapping", &public_mapping(1, 0).to_string()));
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.json()["errormessage"].is_string(), "{answer:?}");
    let after = daemon.controller().status("all");
    for key in ["mappings", "availablePorts"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    fs::remove_dir_all(daemon.path("configs.json")).expect("it was made above");
    daemon.pair(&daemon.add_public(1));
}

#[test]
fn sigterm_delivers_what_is_in_flight_and_exits_0() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(2);
        let _idle = daemon.agent(&daemon.add_public(1));
        let (agent, user) = daemon.narrow_pair(&mapping);
        // Three records: more than the user's kernel buffer takes, less than the daemon's own.
        Payload::new(1).send(&agent, 48 * 1024);
        let mut received = Payload::new(1);
        received.check(&user.expect_some());
        daemon.signal(libc::SIGTERM);
        wait_until("the listeners are closed", PATIENCE, || daemon.dial(mapping.ports[1]).connect().is_err());
        received.receive(&user, 48 * 1024 - received.position());
        user.expect_end_at_last(PATIENCE);
        assert_eq!(daemon.wait().code(), Some(0));
    });
}

#[test]
fn sigint_ends_it_as_well() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let _idle = [daemon.agent(&daemon.add_public(1))];
    daemon.signal(libc::SIGINT);
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_end_does_not_wait_for_who_reads_nothing() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(1);
        let (agent, _user) = daemon.narrow_pair(&mapping);
        Payload::new(1).send_until_stalled(&agent);
        let start = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(start.elapsed() < 8 * SECOND, "took {:?} instead of about 2 s", start.elapsed());
    });
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let daemon = Setup::new(Mode::Plain).descriptors(64).start();
    let mapping = daemon.add_public(10);
    let (agent, user) = daemon.pair(&mapping);
    let crowd: Vec<Peer> = (0..150).map(|_| daemon.user(&mapping)).collect();
    let before = daemon.cpu_time();
    assert_eq!(agent.hear(2 * SECOND), Heard::Silence); // long enough to see a busy loop
    let used = daemon.cpu_time() - before;
    assert!(used < SECOND / 2, "{used:?} of processor time in 2 s of doing nothing");
    agent.send(b"answer");
    user.expect(b"answer");
    assert!(daemon.log().lines().count() < 200, "the log has {} lines", daemon.log().lines().count());
    drop(crowd);
    assert_eq!(daemon.controller().status("all")["status"], "running");
    let start = Instant::now();
    daemon.pair(&mapping);
    assert!(start.elapsed() < 3 * SECOND, "took {:?} after the crowd had left", start.elapsed());
}

#[test]
fn by_default_every_address_is_served() {
    let daemon = Setup::new(Mode::Plain).without("listen").start();
    let mapping = daemon.add_public(2);
    let user = daemon.dial(mapping.ports[1]).to(Ipv4Addr::LOCALHOST).connect().expect("IPv4");
    join(&daemon.agent(&mapping), &user);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("skipped in part: this machine has no IPv6");
    }
    let agent = daemon.dial(mapping.ports[0]).to(Ipv6Addr::LOCALHOST).connect().expect("IPv6");
    agent.authorize(&mapping, 0);
    let user = daemon.dial(mapping.ports[1]).to(Ipv6Addr::LOCALHOST).connect().expect("IPv6");
    join(&agent, &user);
}
