//! A disk that fails at some call of the store.

use super::changes::{Change, Changes, ids, listed, stored, told};
use crate::harness::{Daemon, Faults, Field, Mode, PATIENCE, Random, SHORT, Setup, VANISH, number, seed, wait_until};
use std::fs;

/// What the kernel says of a disk that is full, broken, read-only or gone.
const ERRORS: [i32; 5] = [libc::ENOSPC, libc::EIO, libc::EROFS, libc::ENOENT, libc::EDQUOT];
/// The calls that a change takes at most, those after a failure included.
const CALLS: u32 = 14;
/// All that come after those.
const LATER: u64 = !0 << CALLS;
/// Combinations in the short form.
const ROUNDS: u64 = 100;

/// A daemon, its disk, and a Controller that goes on whatever happens.
struct World {
    daemon: Daemon,
    faults: Faults,
    changes: Changes,
    refused: usize,
}

impl World {
    fn start(seed: u64) -> Option<Self> {
        let faults = Faults::new()?;
        let mut daemon = Setup::new(Mode::Plain).prepare();
        faults.arm(&mut daemon);
        daemon.start();
        let mut changes = Changes::new("m", 6, Random::new(seed));
        for _ in 0..3 {
            make(&daemon, &mut changes);
        }
        Some(Self { daemon, faults, changes, refused: 0 })
    }

    /// One change while these calls fail so: done or refused, nothing in between.
    fn play(&mut self, calls: u64, error: i32, what: &str) {
        let change = self.changes.next();
        let before = self.changes.known.clone();
        let failed = self.faults.get(Field::Failed);
        self.faults.fail_store(calls, error);
        let (path, form) = change.request();
        let answer = self.daemon.controller().post(path, &form);
        let after = listed(&self.daemon.controller());
        self.faults.mend_store();
        self.come_back();
        match answer.status {
            200 => self.changes.note(change.clone(), told(&answer.json())),
            status => {
                self.refused += 1;
                let json = answer.json();
                assert_eq!((status, &json["status"]), (500, &"failed".into()), "{what}: {answer:?}");
                let why = json["errormessage"].as_str().expect("a text");
                assert!(why.starts_with("could not save "), "{what}: {why}");
                // What failed first, and not what came of it.
                let cause =
                    if ERRORS.contains(&error) { format!("(os error {error})") } else { "(os error ".to_owned() };
                assert!(why.contains(&cause), "{what}: {why}");
            }
        }
        let has_failed = self.faults.get(Field::Failed) > failed || error == VANISH;
        assert!(has_failed || answer.status == 200, "{what}: nothing has failed, and yet {answer:?}");
        assert_eq!(after, ids(&self.changes.known), "{what}: {change:?} was answered with {answer:?}");
        // Nothing of what was refused comes back, whether the daemon changes something more or not.
        let file = self.daemon.path("configs.json");
        wait_until(&format!("{what}: the file is right"), PATIENCE, || stored(&file) == self.changes.known);
        assert!(answer.status == 200 || self.changes.known == before);
    }

    /// A folder that has vanished is there again.
    fn come_back(&self) {
        let parked = self.daemon.folder().with_extension("parked");
        let parked = if parked.exists() { parked } else { format!("{}.parked", self.daemon.folder().display()).into() };
        if parked.exists() {
            fs::rename(&parked, self.daemon.folder()).expect("a folder");
        }
    }

    /// Changes are made again, and outlive the daemon.
    fn goes_on(&mut self) {
        make(&self.daemon, &mut self.changes);
        self.daemon.kill();
        self.daemon.start();
        assert_eq!(listed(&self.daemon.controller()), ids(&self.changes.known));
        assert_eq!(stored(&self.daemon.path("configs.json")), self.changes.known);
    }
}

fn make(daemon: &Daemon, changes: &mut Changes) {
    let change: Change = changes.next();
    let answer = change.ask(&daemon.controller()).expect("an answer");
    changes.note(change, told(&answer));
}

#[test]
fn a_disk_that_fails_at_any_call_refuses_a_change_and_keeps_the_old_state() {
    let (rounds, seed) = (number("DISK_FAULTS", ROUNDS), seed("CRASH_SEED"));
    println!("CRASH_SEED={seed}");
    let Some(mut world) = World::start(seed) else { return };
    let mut random = Random::new(seed);
    for first in 0..CALLS {
        // From some call on, for ever; and at one call alone. Both for adding and for removing, sooner or later.
        let error = *random.any(&ERRORS);
        world.play(!0 << first | LATER, error, &format!("seed {seed}, error {error} from call {first} on"));
        let error = *random.any(&[&ERRORS[..], &[VANISH, SHORT]].concat());
        world.play(1 << first, error, &format!("seed {seed}, error {error} at call {first}"));
    }
    world.goes_on();
    for round in 0..rounds {
        let calls = match random.below(3) {
            0 => random.below(1 << CALLS) as u64,
            1 => 1 << random.below(CALLS as usize),
            _ => !0 << random.below(CALLS as usize) | LATER,
        };
        let error = *random.any(&[&ERRORS[..], &[SHORT]].concat());
        world.play(calls, error, &format!("seed {seed}, round {round}, error {error} at {calls:b}"));
        if round % 25 == 24 {
            world.goes_on();
        }
    }
    assert!(world.refused > 0 && world.faults.get(Field::Failed) > 0, "nothing has failed");
    println!("{} changes refused, {} calls failed", world.refused, world.faults.get(Field::Failed));
    world.goes_on();
}
