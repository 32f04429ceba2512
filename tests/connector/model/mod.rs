//! Random sequences of everything that Controllers, agents and users do, against the real daemon and a simple model of
//! docs/protocol.md.
//!
//! After each step the daemon's own counts are those of the model; every byte that arrives is the next one of the
//! stream that it was meant for; at the end of a sequence nothing is left behind. One daemon serves many sequences, so
//! that what one of them leaves shows in the next.
//!
//! `MODEL_SEQUENCES` says how many in each mode, `MODEL_SEED` where they begin: a failure prints the seed of its sequence, and
//! `MODEL_SEED=that MODEL_SEQUENCES=1` runs it again. `MODEL_WORKERS` says how many daemons there are in each mode, `MODEL_SHRINK=1` also looks for a shorter one that fails.

mod line;
mod op;
mod options;
mod party;
mod pipe;
mod session;
mod world;

use crate::harness::{Mode, Setup, for_both_modes};
use op::Op;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::{env, thread};
use world::World;

const SEQUENCES: u64 = 100;
const FIRST_SEED: u64 = 1;
/// Sequences at a time, each with a daemon of its own, in each mode; most of their time is waiting.
const WORKERS: u64 = 3;
/// Steps of one sequence at most.
const STEPS: usize = 40;
/// What a daemon may have grown by after its first sequences, KiB: allocators do not give all of it back.
const GROWTH_KIB: u64 = 2048;
/// Sequences after which its memory is taken for what it needs.
const WARM: u64 = 20;

#[test]
fn random_sequences_agree_with_the_model() {
    let number = |name: &str, default| env::var(name).map_or(default, |value| value.parse().expect("a number"));
    let (count, first) = (number("MODEL_SEQUENCES", SEQUENCES), number("MODEL_SEED", FIRST_SEED));
    let workers = number("MODEL_WORKERS", WORKERS).min(count);
    for_both_modes(|mode| {
        thread::scope(|scope| {
            for worker in 0..workers {
                scope.spawn(move || run(mode, (first..first + count).filter(|seed| seed % workers == worker)));
            }
        });
    });
}

fn run(mode: Mode, seeds: impl Iterator<Item = u64>) {
    let mut world = World::new(start(mode));
    let mut warm = None;
    for (done, seed) in (0..).zip(seeds) {
        let ops = op::sequence(seed, STEPS);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.play(seed, &ops))) {
            eprintln!("seed {seed} failed ({mode:?}) at step {} of:\n{}", world.step(), listing(&ops));
            if env::var_os("MODEL_SHRINK").is_some() {
                eprintln!("as short as it was found to fail:\n{}", listing(&shrink(mode, seed, ops)));
            }
            resume_unwind(panic);
        }
        if done == WARM {
            warm = Some(world.resident_kib());
        }
    }
    let grown = warm.map_or(0, |warm| world.resident_kib().saturating_sub(warm));
    assert!(grown < GROWTH_KIB, "{grown} KiB more than after {WARM} sequences");
}

fn start(mode: Mode) -> Setup {
    Setup::new(mode).set("buffers", 64)
}

fn listing(ops: &[Op]) -> String {
    ops.iter().enumerate().map(|(step, op)| format!("{:3}  {op:?}\n", step + 1)).collect()
}

/// Leaves out what can be left out, larger parts first, while it goes on failing.
fn shrink(mode: Mode, seed: u64, mut ops: Vec<Op>) -> Vec<Op> {
    let fails = |ops: &[Op]| {
        catch_unwind(AssertUnwindSafe(|| {
            World::new(start(mode)).play(seed, ops);
        }))
        .is_err()
    };
    let mut part = ops.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..(at + part).min(ops.len()));
            if fails(&shorter) { ops = shorter } else { at += part }
        }
        part /= 2;
    }
    ops
}
