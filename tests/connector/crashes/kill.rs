//! kill -9 in the middle of a stream of changes.

use super::changes::{Change, Changes, Mappings, ids, listed, stored, told};
use crate::harness::{Controller, Daemon, Faults, KILL, Mode, PATIENCE, Random, Setup, number, seed, wait_until};
use std::thread;
use std::time::Duration;

const POINTS: u64 = 60;
/// Controllers that change mappings at the same time.
const CONTROLLERS: [&str; 3] = ["a", "b", "c"];
/// Of each of them.
const MAPPINGS: usize = 8;
/// A stream of changes is cut after this at the latest.
const LONGEST: Duration = Duration::from_millis(40);
/// More calls of the store than are made for a few changes.
const CALLS: usize = 30;

#[test]
fn what_was_acknowledged_survives_kill_and_nothing_else() {
    let (points, seed) = (number("CRASH_POINTS", POINTS), seed("CRASH_SEED"));
    println!("CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let mut daemon = Setup::new(Mode::Plain).prepare();
    let faults = Faults::new();
    faults.iter().for_each(|faults| faults.arm(&mut daemon));
    let mut controllers: Vec<_> =
        CONTROLLERS.iter().map(|prefix| Changes::new(prefix, MAPPINGS, random.fork())).collect();
    // Of the changes without an answer: those that have not happened, and those that have.
    let mut cut = [0; 2];
    for point in 0..points {
        if random.below(8) == 0 {
            // It dies at its start.
            daemon.spawn();
            thread::sleep(Duration::from_millis(random.below(30) as u64));
            daemon.kill();
        }
        daemon.start();
        let there = stored(&daemon.path("configs.json"));
        assert_eq!(listed(&daemon.controller()), ids(&there), "seed {seed}, point {point}: the file and the daemon");
        let at_a_call = faults.as_ref().filter(|_| point % 2 == 0);
        if let Some(faults) = at_a_call {
            faults.fail_store(1 << random.below(CALLS), KILL);
        }
        let pause = Duration::from_micros(random.below(LONGEST.as_micros() as usize) as u64);
        let open = interrupt(&mut daemon, &mut controllers, pause, at_a_call.is_some());
        faults.iter().for_each(Faults::mend_store);
        let there = stored(&daemon.path("configs.json"));
        for (controller, change) in controllers.iter_mut().zip(open) {
            let happened = settle(controller, change, &there, &format!("seed {seed}, point {point}"));
            cut[usize::from(happened)] += 1;
        }
        let known: usize = controllers.iter().map(|controller| controller.known.len()).sum();
        assert_eq!(there.len(), known, "seed {seed}, point {point}: others are there");
    }
    println!("{points} points, changes without an answer that had not happened, and that had: {cut:?}");
    assert!(points < POINTS || !cut.contains(&0), "no change was ever cut");
}

/// All change what they can until the daemon is killed. Returns the changes that have had no answer.
fn interrupt(daemon: &mut Daemon, controllers: &mut [Changes], pause: Duration, by_itself: bool) -> Vec<Change> {
    let api = daemon.controller();
    thread::scope(|scope| {
        let stream = |changes| {
            let api = api.clone();
            scope.spawn(move || change_until_killed(changes, &api))
        };
        let streams: Vec<_> = controllers.iter_mut().map(stream).collect();
        if by_itself {
            wait_until("it has killed itself", PATIENCE, || daemon.has_ended());
            daemon.wait();
        } else {
            thread::sleep(pause);
            daemon.kill();
        }
        streams.into_iter().map(|stream| stream.join().expect("no assertion")).collect()
    })
}

fn change_until_killed(changes: &mut Changes, api: &Controller) -> Change {
    loop {
        let change = changes.next();
        match change.ask(api) {
            Some(answer) => changes.note(change, told(&answer)),
            None => return change,
        }
    }
}

/// What had no answer may have happened or not, which is returned; everything else is as it was told.
fn settle(controller: &mut Changes, change: Change, there: &Mappings, when: &str) -> bool {
    let happened = change.has_happened(there);
    if happened {
        let now = match &change {
            Change::Add(name) | Change::Remove(name) => there.get(name).cloned().unwrap_or_default(),
        };
        controller.note(change, now);
    }
    for (name, told) in &controller.known {
        assert_eq!(there.get(name), Some(told), "{when}: {name} was acknowledged");
    }
    happened
}
