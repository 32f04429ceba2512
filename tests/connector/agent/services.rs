//! Several services in one process, and changes to them while it runs.

use super::listening_port;
use crate::harness::{
    AgentProgram, Daemon, Dial, Heard, Listed, Mapping, Mode, PATIENCE, Payload, Peer, Service, Setup,
    in_both_versions, in_both_versions_plain, wait_until,
};
use std::thread;
use std::time::Duration;

fn exposing<'a>(name: &'a str, mapping: &'a Mapping, side: usize, to: &Service) -> Listed<'a> {
    Listed { name, mapping, side, local: ("to", to.port), connections: 2 }
}

#[track_caller]
fn expect_echo(peer: &Peer, word: &[u8]) {
    peer.send(word);
    peer.expect(word);
}

fn client(daemon: &Daemon) -> Peer {
    let mut peer = None;
    wait_until("the agent listens", PATIENCE, || {
        peer = Dial::new(listening_port(daemon), None).connect().ok();
        peer.is_some()
    });
    peer.expect("the line above")
}

#[test]
fn public_services_and_both_ends_of_a_tunnel_share_a_process() {
    in_both_versions(|daemon, version| {
        let (web, ssh) = (Service::downloads(), Service::echo());
        let (public, private) = (daemon.add_public(2), daemon.add_private(2));
        let inner = Listed { connections: 2, ..listening("ssh-in", &private, daemon) };
        let agent = AgentProgram::of_services(
            daemon,
            &[exposing("web", &public, 0, &web), exposing("ssh", &private, 1, &ssh), inner],
        );
        let agent = agent.speaking(version).spawn();
        for name in ["web", "ssh", "ssh-in"] {
            agent.wait_for(&format!("Service {name:?}: Authorized by the Connector"));
        }
        thread::scope(|scope| {
            scope.spawn(|| (0..10).for_each(|seed| daemon.user(&public).download(seed, 100_000)));
            for _ in 0..5 {
                expect_echo(&client(daemon), b"through the tunnel");
            }
        });
    });
}

#[test]
fn a_user_of_a_public_service_may_say_the_words_of_a_tunnel() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(2));
        let listed = [exposing("web", &mapping, 0, &service)];
        let _agent = AgentProgram::of_services(daemon, &listed).in_mode("public").speaking(version).start();
        expect_echo(&daemon.user(&mapping), b"iofog/1 tunnel ?");
    });
}

fn listening<'a>(name: &'a str, mapping: &'a Mapping, daemon: &Daemon) -> Listed<'a> {
    Listed { name, mapping, side: 0, local: ("listen", listening_port(daemon)), connections: 1 }
}

#[test]
fn the_trouble_of_one_service_is_no_other_ones() {
    in_both_versions_plain(|daemon, version| {
        let (echo, wrong, right) = (Service::echo(), daemon.add_public(1), daemon.add_public(1));
        let refused = Mapping { passcodes: right.passcodes.clone(), ..daemon.add_public(1) };
        let mut gone = Service::echo();
        gone.stop();
        let services = [
            exposing("refused", &refused, 0, &echo),
            exposing("gone", &wrong, 0, &gone),
            exposing("good", &right, 0, &echo),
        ];
        let agent = AgentProgram::of_services(daemon, &services).speaking(version).spawn();
        agent.wait_for("Service \"refused\": Connector 127.0.0.1:");
        let user = daemon.user(&wrong);
        user.send(b"x");
        assert!(matches!(user.hear(PATIENCE), Heard::Ended(_)));
        agent.wait_for("Service \"gone\": The local service");
        expect_echo(&daemon.user(&right), b"hello");
    });
}

#[test]
fn a_service_is_added_while_data_flows_through_another() {
    in_both_versions_plain(|daemon, version| {
        let (echo, one, two) = (Service::echo(), daemon.add_public(2), daemon.add_public(2));
        let agent = AgentProgram::of_services(daemon, &[exposing("one", &one, 0, &echo)]).speaking(version).spawn();
        let user = daemon.user(&one);
        let total = 128 << 20;
        thread::scope(|scope| {
            scope.spawn(|| Payload::new(1).send(&user, total));
            let receiver = scope.spawn(|| Payload::new(1).receive(&user, total));
            agent.wait_for("Service \"one\": Authorized");
            agent.list(daemon, &[exposing("one", &one, 0, &echo), exposing("two", &two, 0, &echo)]);
            agent.reload("Reloaded, services: 1 added, 0 removed, 0 changed, 1 unchanged");
            expect_echo(&daemon.user(&two), b"hello");
            assert!(!receiver.is_finished(), "nothing flowed any more when the service was added");
        });
    });
}

#[test]
fn what_is_removed_or_changed_ends_and_nothing_else() {
    in_both_versions(|daemon, version| {
        let (echo, other) = (
            Service::echo(),
            Service::start(|stream| {
                let _ = std::io::Write::write_all(&mut &stream, b"other");
                let _ = std::io::copy(&mut &stream, &mut std::io::sink());
            }),
        );
        let (stays, leaves, changes) = (daemon.add_public(1), daemon.add_public(1), daemon.add_public(1));
        let first = [
            exposing("stays", &stays, 0, &echo),
            exposing("leaves", &leaves, 0, &echo),
            exposing("changes", &changes, 0, &echo),
        ];
        let agent = AgentProgram::of_services(daemon, &first).speaking(version).spawn();
        let users = [&stays, &leaves, &changes].map(|mapping| daemon.user(mapping));
        users.iter().for_each(|user| expect_echo(user, b"before"));
        agent.list(daemon, &[exposing("changes", &changes, 0, &other), exposing("stays", &stays, 0, &echo)]);
        agent.reload("Reloaded, services: 0 added, 1 removed, 1 changed, 1 unchanged");
        let [user, left, changed] = users;
        left.expect_end();
        changed.expect_end();
        expect_echo(&user, b"after");
        let user = daemon.user(&changes);
        user.send(b"x");
        user.expect(b"other");
        wait_until("nobody serves any more", PATIENCE, || daemon.controller().status(&leaves.id)["agents"] == 0);
    });
}

#[test]
fn a_listening_service_keeps_its_port_when_it_is_changed() {
    let daemon = &Setup::new(Mode::Plain).start();
    let (echo, one, two) = (Service::echo(), daemon.add_private(2), daemon.add_private(2));
    let ends = [exposing("a", &one, 1, &echo), exposing("b", &two, 1, &echo), listening("in", &one, daemon)];
    let agent = AgentProgram::of_services(daemon, &ends).spawn();
    expect_echo(&client(daemon), b"through the first");
    let [a, b, _] = ends;
    agent.list(daemon, &[a, b, listening("in", &two, daemon)]);
    agent.reload("Reloaded, services: 0 added, 0 removed, 1 changed, 2 unchanged");
    expect_echo(&client(daemon), b"through the second");
}

#[test]
fn a_reload_that_cannot_be_done_changes_nothing() {
    in_both_versions_plain(|daemon, version| {
        let (echo, one, two) = (Service::echo(), daemon.add_public(1), daemon.add_private(1));
        let agent = AgentProgram::of_services(daemon, &[exposing("one", &one, 0, &echo)]).speaking(version).spawn();
        let user = daemon.user(&one);
        expect_echo(&user, b"before");
        agent.configure("{\"connector\": \"127.0.0.1\", \"services\": [{\"port\": 0}]}");
        assert_eq!(agent.check().1, Some(78));
        assert!(agent.check().0.contains("service 1: key \"port\""), "{:?}", agent.check());
        agent.reload("Reload failed, nothing changed");
        let taken = std::net::TcpListener::bind(("127.0.0.1", listening_port(daemon))).expect("a free port");
        agent.list(daemon, &[listening("in", &two, daemon)]);
        agent.reload("Reload failed, nothing changed: service \"in\", key \"listen\"");
        expect_echo(&user, b"after");
        drop(taken);
        let (said, status) = agent.check();
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("agent.json: good, 1 service"), "{said}");
    });
}

#[test]
fn options_do_not_go_with_a_list_of_services() {
    let daemon = &Setup::new(Mode::Plain).start();
    let mut agent = AgentProgram::of_services(daemon, &[]).with(&["--to", "127.0.0.1:1"]).spawn();
    assert_eq!(agent.wait().code(), Some(64), "{}", agent.log());
    agent.wait_for("--to: ");
    agent.wait_for("lists services");
}

#[test]
fn a_killed_agent_that_is_started_again_serves_again() {
    in_both_versions(|daemon, version| {
        let (echo, mapping) = (Service::echo(), daemon.add_public(2));
        let agent = AgentProgram::of_services(daemon, &[exposing("one", &mapping, 0, &echo)]);
        let mut agent = agent.speaking(version).spawn();
        let user = daemon.user(&mapping);
        expect_echo(&user, b"before");
        agent.kill();
        user.expect_end();
        agent.respawn();
        wait_until("it serves again", PATIENCE, || {
            let user = daemon.user(&mapping);
            user.send(b"after");
            matches!(user.hear(Duration::from_secs(1)), Heard::Message(_))
        });
    });
}

/// Idle ones, with a connection each.
#[test]
fn a_thousand_services_without_tls_take_less_than_eight_mebibytes() {
    in_both_versions_plain(|daemon, version| {
        let (echo, mapping) = (Service::echo(), daemon.add_public(1000));
        let names: Vec<String> = (0..1000).map(|number| format!("service {number}")).collect();
        let services: Vec<_> =
            names.iter().map(|name| Listed { connections: 1, ..exposing(name, &mapping, 0, &echo) }).collect();
        let one = daemon.add_public(1);
        let empty =
            AgentProgram::of_services(daemon, &[Listed { connections: 1, ..exposing("one", &one, 0, &echo) }]).start();
        let agent = AgentProgram::of_services(daemon, &services).speaking(version).spawn();
        wait_until("all are connected", PATIENCE, || daemon.controller().status(&mapping.id)["free"] == 1000);
        // The program itself is large before it is optimized.
        let resident = agent.resident_kib().saturating_sub(empty.resident_kib());
        assert!(resident < 8 * 1024, "{resident} KiB for a thousand services");
    });
}
