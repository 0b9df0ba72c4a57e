//! Calls between two nodes whose data plane has more to do than the machine can.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bit_control::ControlTunnel;
use bit_data::{Checksums, Compression};
use record_batch::Codec;

use super::node::{ECHO, Node};
use super::{BUS, PING, RAW, Sample, Samples};
use crate::rpc::load::{Latencies, Load, Window, message, verify};
use crate::rpc::raw::Raw;
use crate::rpc::stack::Pair;
use crate::rpc::threads::ThreadOptions;
use crate::transfer::bus::{Bus, Way};
use crate::transfer::{Batches, Consumer, EndlessStreams, ROW_BYTES};

const STREAMS: usize = 4;
const BATCH_BYTES: usize = 1 << 20;
/// Until the streams are at their rate.
const WARM_UP: Duration = Duration::from_secs(1);

/// One caller for a while: calls are few there, and the slow ones count.
const LOAD: Load = Load {
    measured: Duration::from_secs(3),
    ..Load::calls(super::UNDER_BULK, 1, 1)
};

/// Two nodes with both planes, and a bare connection beside them.
pub(super) struct UnderBulk {
    // Before the threads that it runs on.
    caller: Node,
    answerer: Node,
    data: Bus,
    consumers: Arc<[Consumer]>,
    raw: Raw,
    variants: [&'static str; 3],
}

impl UnderBulk {
    pub(super) fn start(threads: ThreadOptions) -> Result<Self> {
        let way = Way::Streams {
            checksums: Checksums::On,
            compression: Compression::Fixed(Codec::None),
        };
        let consumers: Arc<[_]> = (0..STREAMS).map(|_| Consumer::default()).collect();
        let data = Bus::start(way, threads, Arc::clone(&consumers))?;
        let [caller, answerer] = data
            .ends()
            .map(|threads| threads.app().block_on(Node::start(threads.bus())));
        Ok(Self {
            caller: caller?,
            answerer: answerer?,
            data,
            consumers,
            raw: Raw::start()?,
            variants: [BUS, PING, RAW],
        })
    }

    /// Each variant for a while, while the streams run.
    pub(super) fn round(&mut self) -> Result<Samples> {
        let streams = EndlessStreams::start(&self.data, STREAMS, &Batches::of_bytes(BATCH_BYTES));
        sleep(WARM_UP);
        // Whoever comes first shall not always be the same.
        self.variants.rotate_left(1);
        let samples = self.variants.map(|variant| {
            let samples = self.measure(variant).context(variant)?;
            Ok((variant, samples))
        });
        streams.end(&self.data)?;
        samples.into_iter().collect()
    }

    fn measure(&mut self, variant: &'static str) -> Result<Vec<Sample>> {
        let (begun, before) = (Instant::now(), self.rows());
        let mut latencies = match variant {
            RAW => self.raw.run(&LOAD)?.latencies,
            _ => self.call(variant)?,
        };
        let bulk = (self.rows() - before) * ROW_BYTES as u64;
        let seconds = LOAD.measured.as_secs_f64();
        Ok(vec![
            ("p50_us", latencies.micros(50)?),
            ("p99_us", latencies.micros(99)?),
            ("req_s", latencies.calls() / seconds),
            ("bulk_GB_s", gigabytes(bulk) / begun.elapsed().as_secs_f64()),
        ])
    }

    fn call(&self, variant: &'static str) -> Result<Latencies> {
        let tunnel = self.caller.control.tunnel(self.answerer.control.address());
        let app = self.data.ends()[0].app();
        let calling = call_until(tunnel, variant, LOAD.window());
        app.block_on(app.spawn(calling))
            .context("a caller panicked")?
    }

    fn rows(&self) -> u64 {
        self.consumers.iter().map(Consumer::rows).sum()
    }
}

async fn call_until(
    tunnel: ControlTunnel,
    variant: &'static str,
    window: Window,
) -> Result<Latencies> {
    let message = message(0);
    let (mut latencies, mut begun) = (Latencies::default(), Instant::now());
    loop {
        if variant == PING {
            tunnel.connection().await?.ping().await?;
        } else {
            let answer = tunnel.custom(ECHO, message.clone(), Vec::new()).await?;
            verify(&answer.message, &message)?;
        }
        let Some(ended) = latencies.record(begun, 1, window) else {
            return Ok(latencies);
        };
        begun = ended;
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
