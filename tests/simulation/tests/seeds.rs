//! Seeds that must find nothing, planted bugs that must be found, and that a seed can be replayed.

use streamhouse_simulation::{Bug, Options, run};

/// Seeds that find nothing.
const SEEDS: u64 = 1000;
/// Seeds within which each planted bug is found.
const SEEDS_OF_BUG: u64 = 500;

/// The seeds, on two threads: they do not know of each other.
fn in_parallel(seeds: u64, look: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for first in 0..2 {
            let look = &look;
            scope.spawn(move || (first..seeds).step_by(2).for_each(look));
        }
    });
}

#[test]
fn no_seed_breaks_an_invariant() {
    in_parallel(SEEDS, |seed| {
        let run = run(seed, Options::default());
        if let Some(violation) = run.violation {
            panic!(
                "seed {seed}: {violation}; see how: cargo run -p streamhouse-simulation -- --seed {seed} --trace"
            );
        }
        assert!(run.acknowledged > 0, "seed {seed} acknowledges nothing, and so shows nothing");
    });
}

#[test]
fn two_runs_of_a_seed_agree_step_by_step() {
    let traced = Options { trace: true, ..Options::default() };
    for seed in 0..30 {
        let (first, second) = (run(seed, traced), run(seed, traced));
        let differs = first.trace.iter().zip(&second.trace).position(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.steps, first.hash), (second.steps, second.hash), "seed {seed}");
    }
    assert_ne!(run(0, traced).hash, run(1, traced).hash);
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let options = Options { bug: Some(bug), ..Options::default() };
        let found = (0..SEEDS_OF_BUG).find_map(|seed| Some((seed, run(seed, options).violation?)));
        let Some((seed, violation)) = found else { panic!("{bug} is not found by {SEEDS_OF_BUG} seeds") };
        println!("{bug}: seed {seed}: {violation}");
        assert_eq!(violation.invariant, bug.breaks(), "{bug}: seed {seed}: {violation}");
    }
}

#[test]
fn every_invariant_has_a_planted_bug() {
    let broken = Bug::ALL.map(Bug::breaks);
    assert!((1..=5).all(|invariant| broken.contains(&invariant)));
}
