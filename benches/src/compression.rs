//! Bench `compression`: one stream of record batches of 1 MiB with each codec, and with the adaptive choice.
//!
//! | case | what |
//! |---|---|
//! | `loopback/…` | as fast as it goes |
//! | `100MBs/…` | through a process that lets 100 MB of what is sent through in a second |
//! | `…/compressible` | numbers that grow, few that repeat, and some that could be any: zstd makes half of them |
//! | `…/random` | numbers that no codec makes fewer bytes of |
//!
//! Units: `GB_s` of values, before compression; `cpu_s_GB`, CPU time (user and system) of both ends together, the process
//! in between left out; `wire_share`, bytes that are sent for one of them. Every variant has a stream of its own for two
//! seconds, its first tries included, on the same connection as the others. Why the adaptive choice is what it is stands
//! below its numbers. Receivers read all values, and compare them with what was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use bit_data::{Checksums, CodecReason, Compression};
use fault_proxy::{Proxy, Way as Direction};
use record_batch::Codec;
use tokio::runtime::Builder;

use crate::child::{Child, say};
use crate::process::Watched;
use crate::report::{BEST, Report};
use crate::rounds::{Chosen, Rounds, Sample};
use crate::rpc::threads::ThreadOptions;
use crate::target::{Bound, Target};
use crate::transfer::bus::{Bus, Way};
use crate::transfer::{Batches, Consumer, EndlessStreams, ROW_BYTES};

/// Its cases.
pub(crate) const CASES: &[&str] = &[LOOPBACK[0], LOOPBACK[1], PACED[0], PACED[1]];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "none";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    adaptive(LOOPBACK[0], "none", 0.95),
    adaptive(LOOPBACK[1], "none", 0.95),
    adaptive(PACED[0], BEST, 0.9),
    adaptive(PACED[1], BEST, 0.9),
];

const LOOPBACK: [&str; 2] = ["loopback/compressible", "loopback/random"];
const PACED: [&str; 2] = ["100MBs/compressible", "100MBs/random"];
const ADAPTIVE: &str = "adaptive";
const VARIANTS: [&str; 5] = ["none", "lz4", "zstd", "snappy", ADAPTIVE];
const BATCH_BYTES: usize = 1 << 20;
const PACED_BYTES_PER_S: u32 = 100_000_000;
const SPAN: Duration = Duration::from_secs(2);

const fn adaptive(case: &'static str, base: &'static str, least: f64) -> Target {
    Target::ratio(case, "GB_s", ADAPTIVE, base, Bound::AtLeast(least))
}

fn compression(variant: &str) -> Compression {
    match variant {
        "lz4" => Compression::Fixed(Codec::Lz4),
        "zstd" => Compression::Fixed(Codec::Zstd),
        "snappy" => Compression::Fixed(Codec::Snappy),
        ADAPTIVE => Compression::Adaptive,
        _ => Compression::Fixed(Codec::None),
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Chosen) -> Result<Report> {
    let rounds = Rounds::of("compression");
    let start = |name| Ok(compression(name));
    let mut variants = options.start(&VARIANTS, &rounds.progress, start)?;
    let (mut loopback, mut paced) = (Ends::start(options.threads)?, Ends::start(options.threads)?);
    let _pacer = paced.slow_down()?;
    let loads = [Batches::compressible, Batches::random].map(|batches| batches(BATCH_BYTES));
    rounds.run(&options.settings, |rounds| {
        for (ends, cases) in [(&mut loopback, LOOPBACK), (&mut paced, PACED)] {
            for (case, batches) in cases.into_iter().zip(&loads) {
                if options.settings.wants(case) {
                    put(rounds, case, &mut variants, |way| {
                        ends.measure(way, batches)
                    })?;
                }
            }
        }
        Ok(())
    })
}

/// Measures `case` with every variant, and says why the adaptive one is what it is.
fn put(
    rounds: &mut Rounds,
    case: &'static str,
    variants: &mut [(&'static str, Compression)],
    mut measure: impl FnMut(Compression) -> Result<(Vec<Sample>, CodecReason)>,
) -> Result<()> {
    let mut reason = None;
    rounds.put(case, variants, |_, compression| {
        let (samples, why) = measure(*compression)?;
        if *compression == Compression::Adaptive {
            reason = Some(why);
        }
        Ok(samples)
    })?;
    if let Some(reason) = reason {
        rounds
            .progress
            .note(&format!("  {case:<20} {ADAPTIVE}: {reason:?}"));
    }
    Ok(())
}

/// Two nodes, and who takes what is sent.
struct Ends {
    bus: Bus,
    consumers: Arc<[Consumer]>,
}

impl Ends {
    fn start(threads: ThreadOptions) -> Result<Self> {
        let consumers: Arc<[_]> = Arc::new([Consumer::default()]);
        let way = streams(Compression::Adaptive);
        let bus = Bus::start(way, threads, Arc::clone(&consumers))?;
        Ok(Self { bus, consumers })
    }

    /// From now on through a process that lets less through, until that is dropped.
    fn slow_down(&mut self) -> Result<Child> {
        let to = self.bus.address().to_string();
        let mut pacer = Child::start(["pace", &to])?;
        self.bus.go_through(pacer.line()?.parse()?);
        Ok(pacer)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    fn measure(
        &mut self,
        compression: Compression,
        batches: &Batches,
    ) -> Result<(Vec<Sample>, CodecReason)> {
        self.bus.go(streams(compression));
        let process = Watched(std::process::id());
        let (before, rows) = (process.cpu()?, self.consumers[0].rows());
        let begun = Instant::now();
        let sending = EndlessStreams::start(&self.bus, 1, batches);
        sleep(SPAN);
        sending.end(&self.bus)?;
        let (elapsed, cpu) = (begun.elapsed(), process.cpu()?.since(&before));
        let rows = self.consumers[0].rows() - rows;
        let gigabytes = (rows * ROW_BYTES as u64) as f64 / 1e9;
        let sent = self.bus.sent();
        let samples = vec![
            ("GB_s", gigabytes / elapsed.as_secs_f64()),
            ("cpu_s_GB", cpu.as_secs_f64() / gigabytes),
            (
                "wire_share",
                sent.bytes_sent as f64 / sent.bytes_uncompressed as f64,
            ),
        ];
        Ok((samples, sent.codec_reason))
    }
}

fn streams(compression: Compression) -> Way {
    Way::Streams {
        checksums: Checksums::On,
        compression,
    }
}

/// Lets so much through a second until stdin ends.
pub(crate) fn pace(to: SocketAddr) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let proxy = runtime.block_on(Proxy::start(to, 1))?;
    proxy.set(Direction::ToClient, |faults| {
        faults.bytes_per_s = Some(PACED_BYTES_PER_S);
        faults.piece_bytes_max = 64 << 10;
    });
    say(proxy.addr())?;
    std::io::stdin()
        .lines()
        .try_for_each(|line| line.map(drop))?;
    Ok(())
}
