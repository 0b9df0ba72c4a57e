//! Bench `user`: a million rows from a node to a program, through every pair of client and server.
//!
//! | variant | client | server |
//! |---|---|---|
//! | `jdbc-ours` | the real JDBC driver, one warm JVM | our node |
//! | `jdbc-drill` | the same JVM | a real Drillbit |
//! | `jdbc-replay` | the same JVM | recorded frames, see [`crate::replay`]: what the driver can do at most |
//! | `client-ours` | our client, a process of its own | our node |
//! | `client-drill` | our client | the real Drillbit |
//!
//! Case `1M-rows`: rows per second from sending the query to the end of the result (`rows_s`), and the CPU time, user
//! and system, of the client process meanwhile (`cpu_s`). Case `first-row`: milliseconds until the first row of the
//! same result can be used (`ms`). Every reading takes all cells of all rows by typed getters into one checksum, and
//! one that does not fit the file ends the benchmark.
//!
//! Servers and clients share the machine: on two cores a server that computes takes its time from the client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::interop::{Jdbc, Memory, RealDrillbit};
use harness::node::Node;

use crate::data::{DataSet, ROWS};
use crate::progress::Progress;
use crate::reading::{ClientReader, JdbcReader, Reader, Reading};
use crate::replay::{Recording, Replay};
use crate::report::{Key, Report};
use crate::settings::Settings;
use crate::target::{Bound, Target};

/// Its cases.
pub(crate) const CASES: &[&str] = &[ALL_ROWS, FIRST_ROW];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "jdbc-drill";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    rate("jdbc-ours", "jdbc-drill", 1.25),
    rate("jdbc-ours", "jdbc-replay", 0.8),
    rate("client-drill", "jdbc-drill", 1.5),
    Target::ratio(
        ALL_ROWS,
        "cpu_s",
        "client-drill",
        "jdbc-drill",
        Bound::AtMost(0.2),
    ),
];

const ALL_ROWS: &str = "1M-rows";
const FIRST_ROW: &str = "first-row";
/// Readings of each variant before the first counted one: the JVMs compile what they run often.
const WARM_UP_READINGS: usize = 5;

const fn rate(variant: &'static str, base: &'static str, least: f64) -> Target {
    Target::ratio(ALL_ROWS, "rows_s", variant, base, Bound::AtLeast(least))
}

/// Runs the benchmark.
pub(crate) fn run(settings: &Settings) -> Result<Report> {
    let progress = Progress::new();
    progress.begin("data set: 1 M rows x 5 columns of one Parquet file");
    let data = DataSet::open()?;
    let servers = Servers::start(&data, &progress)?;
    let mut variants = servers.variants(&progress)?;
    let mut report = Report::new("user");
    for _ in 0..WARM_UP_READINGS {
        read_all(&mut variants, &data, &progress, |_, _| ())?;
    }
    for round in 1..=settings.rounds {
        progress.begin(&format!("round {round} of {}", settings.rounds));
        read_all(&mut variants, &data, &progress, |variant, reading| {
            add(&mut report, settings, variant, reading);
        })?;
        // Whoever follows a variant that leaves the machine busy shall not always be the same.
        variants.rotate_left(1);
    }
    Ok(report)
}

/// A client and the name of its pair.
struct Variant<'a> {
    name: &'static str,
    reader: Reader<'a>,
}

/// What is measured against; the node always, the others where they can be started.
struct Servers {
    node: Node,
    jdbc: Option<Jdbc>,
    drill: Option<RealDrillbit>,
    replay: Option<Replay>,
}

impl Servers {
    fn start(data: &DataSet, progress: &Progress) -> Result<Self> {
        progress.begin("our node");
        let node = Node::start(std::env::current_exe()?)?;
        progress.begin("the JVM of the JDBC driver");
        let jdbc = progress.left_out_if_missing("jdbc-*", Jdbc::start());
        progress.begin("a real Drillbit");
        let drill = progress.left_out_if_missing(
            "*-drill, jdbc-replay",
            RealDrillbit::start(&Memory::default()),
        );
        let replay = drill
            .as_ref()
            .map(|drill| replay(drill, data))
            .transpose()?;
        Ok(Self {
            node,
            jdbc,
            drill,
            replay,
        })
    }

    fn variants(&self, progress: &Progress) -> Result<Vec<Variant<'_>>> {
        progress.begin("connecting");
        let drill = self.drill.as_ref().map(RealDrillbit::user);
        let mut variants = Vec::new();
        if let Some(jdbc) = &self.jdbc {
            let of_jdbc = [
                ("jdbc-ours", Some(self.node.user())),
                ("jdbc-drill", drill),
                (
                    "jdbc-replay",
                    self.replay.as_ref().map(|replay| replay.user),
                ),
            ];
            for (name, server) in of_jdbc {
                let Some(server) = server else { continue };
                let reader = Reader::Jdbc(JdbcReader::connect(jdbc, server).context(name)?);
                variants.push(Variant { name, reader });
            }
        }
        for (name, server) in [
            ("client-ours", Some(self.node.user())),
            ("client-drill", drill),
        ] {
            let Some(server) = server else { continue };
            let reader = Reader::Client(ClientReader::connect(server).context(name)?);
            variants.push(Variant { name, reader });
        }
        Ok(variants)
    }
}

fn replay(drill: &RealDrillbit, data: &DataSet) -> Result<Replay> {
    let recording =
        Recording::take(drill.user(), &data.query()).context("recording a Drillbit's answer")?;
    Replay::start(recording)
}

fn read_all(
    variants: &mut [Variant<'_>],
    data: &DataSet,
    progress: &Progress,
    mut take: impl FnMut(&'static str, &Reading),
) -> Result<()> {
    for variant in variants {
        let reading = variant.reader.read(&data.query()).context(variant.name)?;
        verify(&reading, data).context(variant.name)?;
        progress.note(&line(variant.name, &reading));
        take(variant.name, &reading);
    }
    Ok(())
}

fn verify(reading: &Reading, data: &DataSet) -> Result<()> {
    let (read, expected) = (reading.checksum, data.expected);
    ensure!(
        read == expected,
        "read {read:?}, but the file holds {expected:?}"
    );
    Ok(())
}

fn line(variant: &str, reading: &Reading) -> String {
    let Reading {
        first_row,
        elapsed,
        cpu,
        ..
    } = reading;
    format!("  {variant:<14} {elapsed:>10.1?}, first row {first_row:>10.1?}, cpu {cpu:>10.1?}")
}

fn add(report: &mut Report, settings: &Settings, variant: &'static str, reading: &Reading) {
    let samples = [
        (ALL_ROWS, "rows_s", rows_per_second(reading.elapsed)),
        (ALL_ROWS, "cpu_s", reading.cpu.as_secs_f64()),
        (FIRST_ROW, "ms", reading.first_row.as_secs_f64() * 1e3),
    ];
    for (case, unit, value) in samples
        .into_iter()
        .filter(|(case, ..)| settings.wants(case))
    {
        report.add(
            Key {
                case,
                unit,
                variant,
            },
            value,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a million")]
fn rows_per_second(elapsed: Duration) -> f64 {
    ROWS as f64 / elapsed.as_secs_f64()
}
