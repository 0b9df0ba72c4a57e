//! The corpus of the fuzz targets `vectors` and `arrow`, as it is and with seeded mutations.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use record_batch::fuzzing;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let entries = fs::read_dir(corpus.join(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let inputs: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(inputs.len() >= 40, "{target}: only {} inputs", inputs.len());
    inputs
}

/// How many mutations of each corpus are tried.
fn mutations() -> u64 {
    std::env::var("RECORD_BATCH_MUTATIONS").map_or(10_000, |n| n.parse().unwrap())
}

#[test]
fn vectors_survive() {
    survive(&corpus("vectors"), fuzzing::vectors);
}

#[test]
fn arrow_bodies_survive() {
    survive(&corpus("arrow"), fuzzing::arrow);
}

/// A seed makes a finding repeatable.
fn survive(corpus: &[Vec<u8>], target: fn(&[u8])) {
    for input in corpus {
        target(input);
    }
    for seed in 0..mutations() {
        target(&mutated(corpus, &mut StdRng::seed_from_u64(seed)));
    }
}

fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..4) {
        mutate(&mut input, corpus, random);
    }
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut StdRng) {
    let Some(last) = input.len().checked_sub(1) else {
        return;
    };
    let at = random.random_range(0..=last);
    match random.random_range(0..6) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = *[0, 1, 2, 0x7f, 0x80, 0xff].choose(random).unwrap(),
        2 => input[at] = random.random(),
        3 => {
            let word = *[0, 1, -1, i32::MAX, i32::MIN, 64].choose(random).unwrap();
            let end = input.len().min(at + 4);
            input[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
        }
        4 => input.truncate(at),
        _ => {
            let other = corpus.choose(random).unwrap();
            input.truncate(at);
            input.extend(&other[at.min(other.len())..]);
        }
    }
}
