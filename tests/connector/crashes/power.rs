//! A power cut at each call of the store.

use super::changes::{Changes, Mappings, ids, listed, stored, told};
use super::disks::{Call, Disk, Folder};
use crate::harness::{Daemon, Faults, Field, Mode, Random, Setup, number, seed};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const CHANGES: u64 = 6;
const FILES: [&str; 2] = ["configs.json", "configs.json.new"];

#[test]
fn whatever_a_power_cut_leaves_is_the_old_state_or_the_new_one() {
    let Some(faults) = Faults::new() else { return };
    let (count, seed) = (number("POWER_CUT_CHANGES", CHANGES), seed("CRASH_SEED"));
    println!("CRASH_SEED={seed}");
    let mut daemon = Setup::new(Mode::Plain).prepare();
    faults.arm(&mut daemon);
    faults.set(Field::StoreRecord, 1);
    daemon.start();
    let (calls, states) = record(&daemon, &faults, count, seed);
    daemon.kill();

    let mut disk = Disk::default();
    // Folders by what is in them, each with the states before and after every cut that may leave it.
    let mut found: BTreeMap<Folder, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        disk.apply(call);
        // The last that was acknowledged by then, and the one that was under way, if there was one.
        let old = states.iter().rposition(|(_, acknowledged)| *acknowledged <= at + 1).expect("the first one");
        let new = (old + 1).min(states.len() - 1);
        for folder in disk.after_a_cut() {
            found.entry(folder).or_default().insert((old, new));
        }
    }
    let real = |name: &&str| Some(((*name).to_owned(), fs::read(daemon.path(name)).ok()?));
    assert_eq!(disk.content(), FILES.iter().filter_map(real).collect(), "calls of the store were not seen");
    println!("{count} changes, {} calls, {} different folders", calls.len(), found.len());
    for (folder, cuts) in &found {
        let there = load(&mut daemon, folder);
        for &(old, new) in cuts {
            let [before, after] = [old, new].map(|state| ids(&states[state].0));
            let is_one = there == before || there == after;
            assert!(is_one, "seed {seed}: loaded {there:?}\nexpected {before:?}\nor {after:?}");
        }
    }
}

/// Makes changes. Returns the store's calls, and the states in between, each with the number of calls when it was
/// acknowledged.
fn record(daemon: &Daemon, faults: &Faults, count: u64, seed: u64) -> (Vec<Call>, Vec<(Mappings, usize)>) {
    let mut changes = Changes::new("m", 6, Random::new(seed));
    let folder = fs::canonicalize(daemon.folder()).expect("a folder");
    let calls = || faults.record().lines().map(|line| Call::parse(line, &folder)).collect::<Vec<_>>();
    let mut states = vec![(Mappings::new(), calls().len())];
    for _ in 0..count {
        let change = changes.next();
        let answer = change.ask(&daemon.controller()).expect("an answer");
        changes.note(change, told(&answer));
        states.push((changes.known.clone(), calls().len()));
    }
    faults.set(Field::StoreRecord, 0);
    let calls = calls();
    assert!(calls.len() as u64 >= 5 * count, "{calls:?}");
    (calls, states)
}

/// What the daemon makes of a folder; afterwards its file says the same.
fn load(daemon: &mut Daemon, folder: &Folder) -> BTreeMap<String, serde_json::Value> {
    for name in FILES {
        let _ = fs::remove_file(daemon.path(name));
        if let Some(content) = folder.get(name) {
            fs::write(daemon.path(name), content).expect("a file");
        }
    }
    daemon.start();
    let there = listed(&daemon.controller());
    daemon.kill();
    assert_eq!(ids(&stored(&daemon.path("configs.json"))), there);
    assert!(!daemon.path("configs.json.new").exists(), "it was left behind");
    there
}
