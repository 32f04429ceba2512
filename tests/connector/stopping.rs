//! What happens between the word to stop and the end: who still gets something, who waits for it, and who does not.

use crate::harness::{
    AgentProgram, Daemon, End, Heard, Mode, PATIENCE, Payload, Peer, Service, Setup, form, in_both_modes,
    in_both_versions, public_mapping, wait_until,
};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A session whose user takes nothing, so that the daemon takes all the time that it may.
fn stuck(daemon: &Daemon) -> (Peer, Peer) {
    let pair = daemon.narrow_pair(&daemon.add_public(1));
    Payload::new(1).send_until_stalled(&pair.0);
    pair
}

#[test]
fn a_daemon_that_still_delivers_says_that_it_is_stopping() {
    in_both_modes(|daemon| {
        let _pair = stuck(daemon);
        let controller = daemon.controller();
        daemon.signal(libc::SIGTERM);
        wait_until("it says so", SECOND, || controller.status("all")["status"] == "stopping");
        let said = daemon.command(&["status"]);
        assert_eq!((said.status, said.out.lines().next()), (1, Some("iofog-connector is stopping.")), "{said:?}");
        let said = controller.post("/api/v2/commandline", &form("command", "status"));
        assert_eq!(said.json()["response"], "Connector is stopping.");
        let added = controller.post("/api/v2/mapping/add", &form("mapping", &public_mapping(1, 0).to_string()));
        assert_eq!(added.status, 503, "{added:?}");
        let said = daemon.command(&["stop"]);
        assert_eq!((said.status, said.out.as_str()), (0, "Stopping connector...\n"), "{said:?}");
        assert_eq!(daemon.wait().code(), Some(0));
        assert_eq!(daemon.command(&["status"]).status, 3);
    });
}

#[test]
fn a_start_waits_for_a_daemon_that_is_stopping() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let _pair = stuck(&daemon);
    daemon.signal(libc::SIGTERM);
    wait_until("it says so", SECOND, || daemon.controller().status("all")["status"] == "stopping");
    let mut next = daemon.successor();
    assert_eq!(daemon.wait().code(), Some(0));
    wait_until("the next one serves", PATIENCE, || {
        daemon.controller().try_post("/api/v2/status", "mappingid=all").is_ok_and(|answer| answer.status == 200)
    });
    next.kill().expect("it runs");
    next.wait().expect("a child");
}

#[test]
fn agents_that_serve_nobody_are_not_waited_for() {
    in_both_modes(|daemon| {
        let mapping = daemon.add_public(20);
        // They neither read our end nor answer it.
        let agents: Vec<Peer> = (0..20).map(|_| daemon.agent(&mapping)).collect();
        let start = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(start.elapsed() < SECOND, "took {:?}", start.elapsed());
        agents.iter().for_each(Peer::expect_clean_end);
    });
}

#[test]
fn agents_that_serve_nobody_stay_until_the_others_are_served() {
    in_both_modes(|daemon| {
        let idle = daemon.agent(&daemon.add_public(1));
        let _pair = stuck(daemon);
        daemon.signal(libc::SIGTERM);
        // Closed at once it would dial a closed port again and again, and pause longer each time.
        assert_eq!(idle.hear(SECOND), Heard::Silence);
        idle.expect_clean_end();
        assert_eq!(daemon.wait().code(), Some(0));
    });
}

#[test]
fn who_has_got_everything_is_not_waited_for() {
    in_both_modes(|daemon| {
        let pairs: Vec<_> = (0..5).map(|_| daemon.pair(&daemon.add_public(1))).collect();
        for (agent, _) in &pairs {
            agent.send(b"the answer");
        }
        let start = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(start.elapsed() < SECOND, "took {:?}", start.elapsed());
        for (_, user) in &pairs {
            user.expect(b"the answer");
            assert_ne!(user.expect_end(), End::Clean);
        }
    });
}

#[test]
fn who_takes_nothing_delays_the_end_by_two_seconds_at_most() {
    in_both_modes(|daemon| {
        let mut stop = || {
            let _pair = stuck(daemon);
            let start = Instant::now();
            assert_eq!(daemon.terminate().code(), Some(0));
            let took = start.elapsed();
            daemon.start();
            took
        };
        let times = [(); 3].map(|()| stop());
        // A busy machine makes each of them longer by the odd moment.
        let fastest = times.iter().min().expect("three");
        assert!((SECOND..2 * SECOND).contains(fastest), "took {times:?}");
    });
}

#[test]
fn a_half_closed_user_has_a_moment_to_get_its_answer() {
    let mut daemon = Setup::new(Mode::Plain).start();
    let mapping = daemon.add_public(2);
    let (early, answered) = daemon.pair(&mapping);
    answered.finish();
    let (late, unanswered) = daemon.pair(&mapping);
    daemon.signal(libc::SIGTERM);
    thread::sleep(SECOND / 20);
    // This one closes its sending side after the word to stop.
    unanswered.finish();
    early.send(b"the answer");
    early.finish();
    answered.expect(b"the answer");
    answered.expect_clean_end();
    assert_eq!(unanswered.expect_end_at_last(PATIENCE), End::Reset);
    assert_eq!(daemon.wait().code(), Some(0));
    drop(late);
}

/// Restarts the daemon as an init system does. Returns how long it took until all agents were back.
fn restart(daemon: &mut Daemon, mapping: &str, agents: u64) -> Duration {
    let start = Instant::now();
    assert_eq!(daemon.terminate().code(), Some(0));
    daemon.start();
    wait_until("the last agent is back", PATIENCE, || daemon.controller().status(mapping)["free"] == agents);
    start.elapsed()
}

#[test]
fn all_agents_are_back_soon_after_a_restart() {
    in_both_versions(|daemon, version| {
        let (service, mapping) = (Service::echo(), daemon.add_public(30));
        let _agent = AgentProgram::new(daemon, &mapping, 0).speaking(version).exposing(service.port, 30).start();
        wait_until("all are there", PATIENCE, || daemon.controller().status(&mapping.id)["free"] == 30);
        let quick = restart(daemon, &mapping.id, 30);
        let _pair = stuck(daemon);
        let with_a_stuck_user = restart(daemon, &mapping.id, 30);
        eprintln!(
            "{:?}: the last agent was back after {quick:?}, with a stuck user {with_a_stuck_user:?}",
            daemon.mode
        );
        assert!(quick < 3 * SECOND, "took {quick:?}");
        assert!(with_a_stuck_user < 5 * SECOND, "took {with_a_stuck_user:?}");
    });
}
