//! Runs every target over its corpus and over mutations of it; and looks whether `fuzz/` is complete.
//!
//! `FUZZ_SEED` says which mutations, `FUZZ_ROUNDS` how many of each target.

use super::{Body, TARGETS};
use crate::testing::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

const ROUNDS: u64 = 3000;
/// Inputs do not grow beyond this, bytes.
const LONGEST: usize = 4096;
/// Kept inputs of all targets together.
const CORPUS: usize = 600;

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(fuzz(path)).unwrap_or_else(|error| panic!("fuzz/{path}: {error}"))
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The kept inputs of a target, with their file names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The words of a dictionary: what stands in quotes at the end of its lines.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(fuzz("dictionaries").join(format!("{target}.dict"))).unwrap_or_default();
    let quoted = text.lines().filter_map(|line| line.split_once('"')?.1.strip_suffix('"'));
    quoted.map(unescape).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word.as_bytes());
    while let [first, after @ ..] = rest {
        (bytes, rest) = match (first, after) {
            (b'\\', [b'x', hex @ ..]) => {
                let digits = std::str::from_utf8(&hex[..2]).unwrap();
                ([bytes, vec![u8::from_str_radix(digits, 16).unwrap()]].concat(), &hex[2..])
            }
            (b'\\', [next, after @ ..]) => ([bytes, vec![*next]].concat(), after),
            _ => ([bytes, vec![*first]].concat(), after),
        };
    }
    bytes
}

/// Changes a few places: bytes, pieces, words of the dictionary, a piece of another input.
fn mutate(bytes: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)], words: &[Vec<u8>], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(32)).min(bytes.len());
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.extend_from_within(at..end),
            4 => bytes.truncate(at),
            5 => {
                let (_, other) = &others[random.below(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            6 => drop(bytes.splice(at..at, (0..random.below(16)).map(|_| random.next() as u8))),
            _ if !words.is_empty() => drop(bytes.splice(at..end, words[random.below(words.len())].iter().copied())),
            _ => {}
        }
        bytes.truncate(LONGEST);
    }
}

/// Calls the body; what makes it panic is shown, so that it can be kept in the corpus.
fn call(target: &str, body: Body, bytes: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(bytes))) {
        println!("target {target}, {origin}, input b\"{}\"", bytes.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn kept_inputs_do_no_harm() {
    for (target, body) in TARGETS {
        for (file, bytes) in corpus(target) {
            call(target, *body, &bytes, &file.display().to_string());
        }
    }
}

#[test]
fn mutated_inputs_do_no_harm() {
    let (seed, rounds) = (setting("FUZZ_SEED", 1), setting("FUZZ_ROUNDS", ROUNDS));
    thread::scope(|scope| {
        for (target, body) in TARGETS {
            scope.spawn(move || {
                let (corpus, words, mut random) = (corpus(target), dictionary(target), Random::new(seed));
                for round in 0..rounds {
                    let mut bytes = corpus[random.below(corpus.len())].1.clone();
                    mutate(&mut bytes, &corpus, &words, &mut random);
                    call(target, *body, &bytes, &format!("FUZZ_SEED={seed}, round {round}"));
                }
            });
        }
    });
}

/// One that is forgotten somewhere would silently not be run.
#[test]
fn every_target_has_its_program_and_a_small_corpus() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let manifest = text("Cargo.toml");
    let programs: BTreeSet<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    assert_eq!(programs, names, "fuzz/Cargo.toml and TARGETS differ");
    for name in &names {
        let program = text(&format!("fuzz_targets/{name}.rs"));
        assert!(program.contains(&format!("iofog_connector::fuzzing::{name}::body(")), "fuzz_targets/{name}.rs");
        assert!(!corpus(name).is_empty(), "fuzz/corpus/{name} is empty");
    }
    let kept: usize = names.iter().map(|name| corpus(name).len()).sum();
    assert!(kept <= CORPUS, "{kept} inputs are kept: minimise (fuzz/minimise)");
}

/// What is fuzzed must be what is shipped.
#[test]
fn fuzzing_uses_the_programs_own_dependencies() {
    let versions = |lock: &str| {
        let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
        let words = |line: &str| Some((line.split_once(" = \"")?.0.to_owned(), line.split('"').nth(1)?.to_owned()));
        let (mut name, fields) = (String::new(), lock.lines().filter_map(words).collect::<Vec<_>>());
        for (key, value) in fields {
            match key.as_str() {
                "name" => name = value,
                "version" => drop(versions.entry(name.clone()).or_default().insert(value)),
                _ => {}
            }
        }
        versions
    };
    let (ours, fuzzed) = (versions(&text("../Cargo.lock")), versions(&text("Cargo.lock")));
    let differs =
        |(name, fuzzed): &(&String, &BTreeSet<String>)| ours.get(*name).is_some_and(|ours| !fuzzed.is_subset(ours));
    let differing: Vec<_> = fuzzed.iter().filter(differs).collect();
    assert!(
        differing.is_empty(),
        "{differing:?}: cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml"
    );
}
