//! Seeded mutations of whole sessions hold every invariant of [`fuzz_sessions`], and nothing panics, caught or not.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    panic,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use fuzz_sessions::{Tally, client, seeds, user_server};
use rpc_bus::fuzzing::Generator;

/// Mutations of each test; some seconds.
const MUTATIONS: u64 = 800;

/// Panics of any thread. The product catches those of handlers and queries, so they would not be seen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            told(info);
        }));
    });
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/stream")
}

fn with_mode(mode: u8, script: &[u8]) -> Vec<u8> {
    [&[mode], script].concat()
}

/// Plays every script in every mode, then mutations of them.
fn run(scripts: &[Vec<u8>], modes: u8, body: fn(&[u8]) -> Tally) -> Tally {
    count_panics();
    let mut tally = Tally::default();
    for (script, mode) in scripts.iter().zip((0..modes).cycle()) {
        tally += body(&with_mode(mode | 1, script));
    }
    let mut generator = Generator::new(1);
    for number in 0..MUTATIONS {
        let script = generator.stream(scripts);
        let mode = u8::try_from(number % u64::from(modes)).unwrap();
        // Without a handshake hardly anything happens.
        let mode = if number % 16 == 0 { mode } else { mode | 1 };
        let input = with_mode(mode, &script);
        let before = PANICS.load(Ordering::SeqCst);
        tally += body(&input);
        assert_eq!(PANICS.load(Ordering::SeqCst), before, "input {input:02x?}");
    }
    tally
}

#[test]
fn a_user_server_bears_its_clients() {
    let mut scripts = seeds::of_clients();
    scripts.extend(seeds::recorded(&recordings(), ".Client").unwrap());
    let tally = run(&scripts, 8, user_server);
    assert!(tally.sessions > MUTATIONS / 4, "{tally:?}");
    assert!(tally.queries > MUTATIONS / 8, "{tally:?}");
    assert!(tally.batches > MUTATIONS / 16, "{tally:?}");
}

#[test]
fn a_client_bears_its_servers() {
    let mut scripts = seeds::of_servers();
    scripts.extend(seeds::recorded(&recordings(), ".Server").unwrap());
    let tally = run(&scripts, 64, client);
    assert!(tally.sessions > MUTATIONS / 4, "{tally:?}");
    assert!(tally.queries > MUTATIONS / 8, "{tally:?}");
    assert!(tally.batches > MUTATIONS / 16, "{tally:?}");
}
