//! Seeded mutations of the corpus hold every invariant of [`rpc_bus::fuzzing`], and need little memory.
//!
//! More of them, for as long as one likes: `examples/mutate.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use rpc_bus::fuzzing::{Corpus, Tally, batch};

/// Some ten seconds without optimisation.
const BATCHES: u64 = 60;

fn corpus() -> Corpus {
    Corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")).unwrap()
}

#[test]
fn the_corpus_holds() {
    let tally = corpus().run();
    assert!(tally.frames > 1000 && tally.sessions > 100, "{tally:?}");
}

#[test]
fn mutations_hold() {
    let corpus = corpus();
    let mut tally = Tally::default();
    for number in 0..BATCHES {
        tally += batch(1, number, &corpus);
    }
    // Most inputs must get far, or they would test little.
    assert!(tally.sessions > 100 * BATCHES, "{tally:?}");
    assert!(tally.frames > 500 * BATCHES, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let corpus = corpus();
    assert_eq!(batch(7, 3, &corpus), batch(7, 3, &corpus));
    assert_ne!(batch(7, 3, &corpus), batch(8, 3, &corpus));
}
