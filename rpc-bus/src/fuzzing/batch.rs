//! Seeded mutations in batches, so that any number of threads run the same inputs, and one of them can be run again.

use std::{fs, io, path::Path, thread};

use super::{Generator, Tally, codec, session, stream, valid_stream};

/// Inputs of each kind in one batch.
const BATCH_INPUTS: u32 = 100;

/// What mutations start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// What one peer sends: inputs of [`codec()`] and [`stream()`].
    pub streams: Vec<Vec<u8>>,
    /// Inputs of [`session()`].
    pub scripts: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads the files of `folder/stream` and `folder/session`, in the order of their names.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut streams = read_files(&folder.join("stream"))?;
        streams.push(valid_stream());
        let scripts = read_files(&folder.join("session"))?;
        Ok(Self { streams, scripts })
    }

    /// Runs every input as it is.
    ///
    /// # Panics
    ///
    /// An invariant does not hold.
    #[must_use]
    pub fn run(&self) -> Tally {
        let mut tally = Tally::default();
        for bytes in &self.streams {
            tally += codec(bytes);
            tally += stream(bytes);
        }
        for bytes in &self.scripts {
            tally += session(bytes);
        }
        tally
    }
}

fn read_files(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(fs::read).collect()
}

/// Runs one batch of mutations of `corpus`: 100 streams, each through [`codec()`] and [`stream()`], and 100 scripts. What
/// breaks is printed, with what is needed to run it again.
///
/// # Panics
///
/// An invariant does not hold.
#[must_use]
pub fn batch(seed: u64, number: u64, corpus: &Corpus) -> Tally {
    // Batches of one seed must differ, and those of neighbouring seeds too.
    let mut generator = Generator::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
    let mut tally = Tally::default();
    for _ in 0..BATCH_INPUTS {
        let bytes = generator.stream(&corpus.streams);
        let input = Input {
            seed,
            number,
            bytes: &bytes,
        };
        tally += input.run("codec", codec);
        tally += input.run("stream", stream);
        let bytes = generator.script(&corpus.scripts);
        let input = Input {
            seed,
            number,
            bytes: &bytes,
        };
        tally += input.run("session", session);
    }
    tally
}

struct Input<'a> {
    seed: u64,
    number: u64,
    bytes: &'a [u8],
}

impl Input<'_> {
    fn run(&self, target: &'static str, body: fn(&[u8]) -> Tally) -> Tally {
        let report = Report {
            input: self,
            target,
        };
        body(report.input.bytes)
    }
}

/// Speaks up when the input that it stands for breaks something.
struct Report<'a> {
    input: &'a Input<'a>,
    target: &'static str,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Input {
                seed,
                number,
                bytes,
            } = self.input;
            eprint!("{} broke: seed {seed}, batch {number}, input ", self.target);
            bytes.iter().for_each(|byte| eprint!("{byte:02x}"));
            eprintln!();
        }
    }
}
