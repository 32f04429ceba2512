//! The time of day jumps, or is wrong from the start, as on a gateway without a battery: nothing that is measured depends
//! on it, and what depends on it is right as soon as it is.
//!
//! `CLOCK_JUMPS` says how many in each mode, `CLOCK_SEED` which.

use crate::harness::{
    AgentProgram, Authority, Faults, Heard, Mode, PATIENCE, Random, Service, Setup, StopAtLast, call, for_both_modes,
    number, ping, public_mapping, seed, visit, wait_until,
};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const JUMPS: u64 = 12;
const YEAR: i64 = 365 * 24 * 3600;
/// 2038-01-19, 03:14:07: the last second of 32 bits.
const LAST_OF_32_BITS: i64 = i32::MAX as i64;
/// Nobody waits for longer than this, on a busy machine: what depends on the clock waits for a year, or for ever.
const GAP: Duration = Duration::from_secs(5);
/// The longest pause of an agent that is not let in (docs/limits.md).
const AGENT_PAUSE: Duration = Duration::from_secs(30);
/// After so many milliseconds without a heartbeat an agent is ended.
const ABSENCE: u32 = 3000;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

#[test]
fn jumps_of_a_year_disturb_nobody() {
    let (jumps, seed) = (number("CLOCK_JUMPS", JUMPS), seed("CLOCK_SEED"));
    println!("CLOCK_SEED={seed}");
    for_both_modes(|mode| {
        let (Some(faults), Some(agents)) = (Faults::new(), Faults::new()) else { return };
        let mut random = Random::new(seed + mode as u64);
        let mut daemon = Setup::new(mode).prepare();
        faults.arm(&mut daemon);
        daemon.start();
        let [steady, after, exposed] = [(); 3].map(|()| daemon.add_public(10));
        let watched = daemon.add(&public_mapping(2, ABSENCE));
        let echo = Service::echo();
        let program = AgentProgram::new(&daemon, &exposed, 0).exposing(echo.port, 2);
        let _program = agents.arm_agent(program).start();
        call(&daemon, &exposed).expect("it is served");
        let (agent, user) = daemon.pair(&steady);
        let (beating, silent) = (daemon.agent(&watched), daemon.agent(&watched));
        let silent_since = Instant::now();
        let (stop, longest) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let echo = |bytes: &[u8]| {
                agent.expect(bytes);
                agent.send(bytes);
            };
            let (stop, longest, user) = (&stop, &longest, &user);
            scope.spawn(move || ping(user, echo, stop, longest));
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    beating.send(b"BEAT");
                    beating.expect_message(b"BEAT");
                    thread::sleep(Duration::from_millis(ABSENCE as u64 / 10));
                }
            });
            let silent = scope.spawn(|| {
                assert!(matches!(silent.hear(PATIENCE), Heard::Ended(_)), "who is silent is ended");
                silent_since.elapsed()
            });
            let _stop = StopAtLast(stop);
            let mut uptime = 0;
            for jump in 0..jumps {
                let what = format!("seed {seed}, {mode:?}, jump {jump}");
                let ahead = [YEAR, -YEAR, 0, LAST_OF_32_BITS - now() - 1, 40 * YEAR][random.below(5)];
                let (before, cpu) = (Instant::now(), daemon.cpu_time());
                faults.set_clock(ahead);
                if random.below(2) == 0 {
                    agents.set_clock(ahead);
                }
                visit(&daemon, &after).unwrap_or_else(|error| panic!("{what}: {error}"));
                call(&daemon, &exposed).unwrap_or_else(|error| panic!("{what}: {error}"));
                let status = daemon.controller().status("all");
                assert!(before.elapsed() < GAP, "{what}: {:?}", before.elapsed());
                let told = status["timestamp"].as_i64().expect("a number") / 1000;
                assert!((told - now() - ahead).abs() < 10, "{what}: {told}");
                let up = status["uptime"].as_u64().expect("a number");
                assert!((uptime..uptime + 20_000).contains(&up), "{what}: uptime {up} after {uptime}");
                uptime = up;
                thread::sleep(Duration::from_millis(100 + random.below(400) as u64));
                let busy = (daemon.cpu_time() - cpu).as_secs_f64() / before.elapsed().as_secs_f64();
                assert!(busy < 0.6, "{what}: {busy} of a processor");
            }
            let ended = silent.join().expect("no assertion").as_millis();
            assert!((2900..6000).contains(&ended), "who is silent was ended after {ended} ms");
        });
        let longest = Duration::from_millis(longest.into_inner());
        println!("{mode:?}: {jumps} jumps, longest answer {longest:?}");
        assert!(longest < GAP, "{longest:?}");
    });
}

/// Both begin in 1970, where no certificate is valid yet.
#[test]
fn from_1970_on() {
    let (Some(faults), Some(agents)) = (Faults::new(), Faults::new()) else { return };
    let start = 10 - now();
    faults.set_clock(start);
    agents.set_clock(start);
    let authority = Authority::new();
    let leaf = authority.leaf();
    let mut daemon = Setup::new(Mode::Tls).certificate(leaf.clone()).set("controllerca", "ca.pem").prepare();
    fs::write(daemon.path("ca.pem"), authority.pem()).expect("a file");
    faults.arm(&mut daemon);
    daemon.spawn();
    // The command line has the daemon's own certificate, which is taken whatever its dates.
    wait_until("it runs", PATIENCE, || daemon.command(&["status"]).status == 0);
    assert!(daemon.log().starts_with("1970-01-01T00:"), "{}", daemon.log());
    // A Controller that an authority vouches for is not, before the clock is right.
    let of_controller = leaf.client_with(&authority.leaf(), rustls::ALL_VERSIONS);
    let mut controller = daemon.controller();
    controller.dial = controller.dial.with_tls(of_controller);
    assert!(controller.try_post("/api/v2/status", "mappingid=all").is_err());
    wait_until("the log says why", PATIENCE, || daemon.log().contains("its client certificate is not taken"));
    let said = daemon.command(&["mapping", "add", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    let added: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let text = |key: &str| added[key].as_str().expect("a text").to_owned();
    let port = |key: &str| added[key].as_u64().expect("a port") as u16;
    let mapping = crate::harness::Mapping {
        id: text("id"),
        ports: [port("port1"), port("port2")],
        passcodes: [text("passcode1"), text("passcode2")],
    };
    let echo = Service::echo();
    let connector = format!("localhost:{}", mapping.ports[0]);
    let agent = |trusted: &str| {
        let agent = AgentProgram::bare(&mapping.passcodes[0]).with(&["--connector", &connector]);
        agents.arm_agent(agent.trusting(trusted).exposing(echo.port, 1))
    };
    // The Connector's own certificate is known, and its dates do not matter.
    drop(agent(leaf.chain.split_inclusive("-----END CERTIFICATE-----\n").next().expect("PEM")).start());
    let careful = agent(&authority.pem()).spawn();
    careful.wait_for("it is not valid yet; is the clock of this machine right?");
    // The clock is set.
    faults.set_clock(0);
    agents.set_clock(0);
    let set = Instant::now();
    wait_until("the agent has come", AGENT_PAUSE + PATIENCE, || careful.log().contains("Authorized by the Connector"));
    assert!(set.elapsed() < AGENT_PAUSE + Duration::from_secs(2), "{:?}", set.elapsed());
    assert_eq!(controller.status("all")["status"], "running");
    call(&daemon, &mapping).expect("it is served");
    daemon.keep_secret(&mapping.passcodes[0]);
}
