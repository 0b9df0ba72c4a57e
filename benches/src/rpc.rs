//! Bench `rpc`: small calls over one connection, and what a bare socket makes of the same bytes.
//!
//! A call carries 100 bytes there and the same back. Cases: `latency-1` (one call at a time), `inflight-64` and
//! `inflight-1024` (as many callers, each with one call at a time). Units: `p50_us` and `p99_us` of a call, `req_s`.
//!
//! | variant | what |
//! |---|---|
//! | `bus` | a client and a server of the bus, each with threads of its own as a node has them; the handler runs off the I/O thread |
//! | `raw` | two blocking threads, no frames; with more in flight all messages go in one write, so that it is the limit, not a peer |

mod bus;
mod raw;
mod threads;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::progress::Progress;
use crate::report::{Key, Report};
use crate::settings::Settings;
use crate::target::Target;
use threads::ThreadOptions;

/// Its cases.
pub(crate) const CASES: &[&str] = &["latency-1", "inflight-64", "inflight-1024"];
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "raw";
/// What it is expected to show: nothing is promised of a machine that is not known.
pub(crate) const TARGETS: &[Target] = &[];

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];
/// Bytes that a call carries in each direction.
const MESSAGE_BYTES: usize = 100;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_secs(1);

/// Round-trip times of the calls that began and ended while it was measured.
#[derive(Debug, Default)]
struct Latencies(Vec<u32>);

/// When calls are measured.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Arguments of the benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    threads: ThreadOptions,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let settings = &options.settings;
    let progress = Progress::new();
    let bus = bus::Pair::start(options.threads)?;
    let mut raw = raw::Pair::start()?;
    let mut report = Report::new("rpc");
    for round in 1..=settings.rounds {
        progress.begin(&format!("round {round} of {}", settings.rounds));
        for (case, in_flight) in CASES
            .iter()
            .zip(IN_FLIGHT)
            .filter(|(case, _)| settings.wants(case))
        {
            add(&mut report, &progress, case, "bus", bus.run(in_flight)?)?;
            add(&mut report, &progress, case, "raw", raw.run(in_flight)?)?;
        }
    }
    Ok(report)
}

fn add(
    report: &mut Report,
    progress: &Progress,
    case: &'static str,
    variant: &'static str,
    mut latencies: Latencies,
) -> Result<()> {
    let (p50, p99) = (latencies.micros(50)?, latencies.micros(99)?);
    let rate = latencies.per_second();
    progress.note(&format!(
        "  {case:<14} {variant:<4} p50 {p50:>8.1} us, p99 {p99:>8.1} us, {rate:>9.0} req/s"
    ));
    for (unit, value) in [("p50_us", p50), ("p99_us", p99), ("req_s", rate)] {
        report.add(
            Key {
                case,
                unit,
                variant,
            },
            value,
        );
    }
    Ok(())
}

impl Window {
    fn now() -> Self {
        let from = Instant::now() + WARM_UP;
        Self {
            from,
            until: from + MEASURED,
        }
    }
}

impl Latencies {
    /// Adds `calls` that began and ended together, if that was within `window`; false when the window is over.
    fn record(&mut self, begun: Instant, calls: usize, window: Window) -> bool {
        let ended = Instant::now();
        if begun >= window.from && ended < window.until {
            let nanos = u32::try_from((ended - begun).as_nanos()).unwrap_or(u32::MAX);
            self.0.extend(std::iter::repeat_n(nanos, calls));
        }
        ended < window.until
    }

    fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn micros(&mut self, percent: usize) -> Result<f64> {
        anyhow::ensure!(!self.0.is_empty(), "no call ended in {MEASURED:?}");
        let index = (self.0.len() - 1) * percent / 100;
        Ok(f64::from(*self.0.select_nth_unstable(index).1) / 1e3)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 calls")]
    fn per_second(&self) -> f64 {
        self.0.len() as f64 / MEASURED.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut latencies = Latencies((1..=100).rev().map(|micros| micros * 1000).collect());
        let near = |micros: f64, expected: f64| (micros - expected).abs() < 1e-9;
        assert!(near(latencies.micros(50).unwrap(), 50.0));
        assert!(near(latencies.micros(99).unwrap(), 99.0));
        assert!(Latencies::default().micros(50).is_err());
    }

    #[test]
    fn calls_outside_of_the_window_do_not_count() {
        let now = Instant::now();
        let minute = Duration::from_mins(1);
        let mut latencies = Latencies::default();
        assert!(latencies.record(
            now,
            1,
            Window {
                from: now + minute,
                until: now + 2 * minute
            }
        ));
        assert!(latencies.record(
            now,
            3,
            Window {
                from: now,
                until: now + minute
            }
        ));
        assert!(!latencies.record(
            now,
            1,
            Window {
                from: now,
                until: now
            }
        ));
        assert_eq!(latencies.0.len(), 3);
    }
}
