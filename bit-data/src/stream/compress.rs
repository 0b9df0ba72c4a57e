//! What a sender compresses with, measured for each stream. No clock of its own.
//!
//! Compressing and sending go on at the same time, so that a batch takes as long as the slower of both. How fast the
//! link is shows in the waits for credit and for room; how fast the codecs are, and what they make of these batches, in
//! samples, which are only taken where the link is slow enough for a codec to pay at all. What was promised has to come
//! true: a codec with which the next batches do not get over faster than those before is left, and the next try waits
//! longer. So a machine whose cores are busy, which looks like a slow link, gets no more work from this.

#![allow(
    clippy::cast_precision_loss,
    reason = "rates, which need no more than a few digits"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use record_batch::Codec;

use super::{options::Compression, stats::CodecReason};

/// A link faster than this is not worth any codec.
const FAST_LINK_BYTES_PER_S: f64 = 1e9;
/// How many batches are sent between two looks at the link.
const BATCHES_PER_LOOK: u32 = 8;
/// How many looks samples are good for.
const LOOKS_PER_SAMPLE: u32 = 32;
/// What is compressed of a batch to see how the codecs do: so many slices of it,
const SLICES: usize = 16;
/// in bytes.
const SLICE_BYTES: usize = 4 * 1024;
/// What a codec must bring to take the place of another.
const GAIN_MIN: f64 = 1.1;
/// A codec on trial keeps its promise if a byte takes less than this share of the time that it took before, and breaks it
/// if it takes as much more. In between nobody knows yet: what was sent before is still on its way.
const KEPT: f64 = 0.95;
/// For so many looks.
const LOOKS_PER_TRIAL: u32 = 4;
/// A sample is compressed so often, and the fastest counts: a core that had something else to do says nothing of a codec.
const TRIES: u32 = 3;
/// What is believed of a link that nobody waits for, from one look to the next.
const FASTER: f64 = 0.95;
/// Waiting for this share of the time means that the link, and nothing else, sets the pace.
const WAITING_SHARE: f64 = 0.3;
/// For how many looks nothing is tried after a codec has not kept its promise; twice as many after each further one.
const HOLD_OFF_LOOKS: u32 = 32;
/// At most.
const HOLD_OFF_LOOKS_MAX: u32 = 4096;

/// Chooses the codec of a stream.
#[derive(Debug)]
pub(crate) struct CodecChooser {
    codec: Codec,
    reason: CodecReason,
    /// `None` where there is nothing to choose.
    adaptive: Option<Adaptive>,
}

#[derive(Debug)]
struct Adaptive {
    /// That the receiver takes.
    codecs: Vec<Codec>,
    samples: Vec<Sample>,
    sample_age: u32,
    link_s_per_byte: f64,
    since: Instant,
    batches: u32,
    wire_bytes: u64,
    /// Before compression.
    bytes: u64,
    waited: Duration,
    /// How long a byte took, before compression, from the look before the last one to the last one.
    s_per_byte: f64,
    /// A codec was taken in place of this one.
    trial: Option<Trial>,
    /// For so many looks nothing is tried.
    held_off: u32,
    /// For how many the next time.
    hold_off: u32,
}

/// What a codec has to be better than.
#[derive(Clone, Copy, Debug)]
struct Trial {
    codec: Codec,
    s_per_byte: f64,
    looks: u32,
}

/// What a codec made of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) codec: Codec,
    /// Of compressing a byte.
    pub(crate) s_per_byte: f64,
    /// Bytes after for one before.
    pub(crate) share: f64,
}

impl CodecChooser {
    /// For a receiver that takes `codecs` beside none.
    pub(crate) fn new(compression: Compression, codecs: &[Codec], now: Instant) -> Self {
        match compression {
            Compression::Fixed(codec) if codec == Codec::None || codecs.contains(&codec) => {
                Self::fixed(codec, CodecReason::Fixed)
            }
            Compression::Fixed(_) => Self::fixed(Codec::None, CodecReason::NotTaken),
            Compression::Adaptive if codecs.is_empty() => {
                Self::fixed(Codec::None, CodecReason::NotTaken)
            }
            Compression::Adaptive => Self {
                codec: Codec::None,
                reason: CodecReason::Unmeasured,
                adaptive: Some(Adaptive::new(codecs, now)),
            },
        }
    }

    fn fixed(codec: Codec, reason: CodecReason) -> Self {
        Self {
            codec,
            reason,
            adaptive: None,
        }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) fn reason(&self) -> CodecReason {
        self.reason
    }

    /// A batch of `bytes` was sent as `wire_bytes`. Returns the codecs of which samples of the next one are wanted.
    pub(crate) fn on_sent(
        &mut self,
        (bytes, wire_bytes): (u64, u64),
        waited: Duration,
        now: Instant,
    ) -> Option<Vec<Codec>> {
        let adaptive = self.adaptive.as_mut()?;
        adaptive.bytes += bytes;
        adaptive.wire_bytes += wire_bytes;
        adaptive.waited += waited;
        adaptive.batches += 1;
        if adaptive.batches < BATCHES_PER_LOOK {
            return None;
        }
        adaptive.look_at_link(now);
        if let Some(before) = adaptive.broken_promise() {
            self.codec = before;
        }
        if adaptive.link_is_fast() {
            adaptive.trial = None;
            (self.codec, self.reason) = (Codec::None, adaptive.fast_link());
            return None;
        }
        if adaptive.is_held_off() {
            self.reason = adaptive.reason(self.codec);
            return None;
        }
        if adaptive.samples_are_old() {
            return Some(adaptive.codecs.clone());
        }
        self.choose();
        None
    }

    /// Samples that were asked for.
    pub(crate) fn on_samples(&mut self, samples: Vec<Sample>) {
        if let Some(adaptive) = &mut self.adaptive {
            (adaptive.samples, adaptive.sample_age) = (samples, 0);
            self.choose();
        }
    }

    fn choose(&mut self) {
        if let Some(adaptive) = &mut self.adaptive {
            (self.codec, self.reason) = adaptive.choose(self.codec);
        }
    }
}

impl Adaptive {
    fn new(codecs: &[Codec], now: Instant) -> Self {
        Self {
            codecs: codecs.to_vec(),
            samples: Vec::new(),
            sample_age: 0,
            link_s_per_byte: 0.0,
            since: now,
            batches: 0,
            wire_bytes: 0,
            bytes: 0,
            waited: Duration::ZERO,
            s_per_byte: 0.0,
            trial: None,
            held_off: 0,
            hold_off: HOLD_OFF_LOOKS,
        }
    }

    /// Where the sender waited, the link took what it could; else it could have taken more.
    fn look_at_link(&mut self, now: Instant) {
        let span = now.saturating_duration_since(self.since).as_secs_f64();
        let seen = span / (self.wire_bytes.max(1)) as f64;
        let is_slow = self.waited.as_secs_f64() >= WAITING_SHARE * span;
        // How fast it is then, nobody knows: what is believed gets faster until it is too fast.
        let believed = FASTER * self.link_s_per_byte;
        self.link_s_per_byte = if is_slow { seen } else { seen.min(believed) };
        self.s_per_byte = span / (self.bytes.max(1)) as f64;
        (self.since, self.batches, self.wire_bytes, self.bytes) = (now, 0, 0, 0);
        self.waited = Duration::ZERO;
        self.sample_age += 1;
    }

    /// What to go back to, if the codec that was taken has brought nothing.
    fn broken_promise(&mut self) -> Option<Codec> {
        let mut trial = self.trial.take()?;
        if self.s_per_byte < KEPT * trial.s_per_byte {
            self.hold_off = HOLD_OFF_LOOKS;
            return None;
        }
        trial.looks += 1;
        if trial.looks < LOOKS_PER_TRIAL && KEPT * self.s_per_byte < trial.s_per_byte {
            self.trial = Some(trial);
            return None;
        }
        self.held_off = self.hold_off;
        self.hold_off = (2 * self.hold_off).min(HOLD_OFF_LOOKS_MAX);
        Some(trial.codec)
    }

    /// Whether nothing is to be tried for now.
    fn is_held_off(&mut self) -> bool {
        let is_held_off = self.held_off > 0;
        self.held_off = self.held_off.saturating_sub(1);
        is_held_off
    }

    fn link_is_fast(&self) -> bool {
        self.link_s_per_byte * FAST_LINK_BYTES_PER_S < 1.0
    }

    fn fast_link(&self) -> CodecReason {
        CodecReason::FastLink {
            bytes_per_s: self.bytes_per_s(),
        }
    }

    fn bytes_per_s(&self) -> f64 {
        1.0 / self.link_s_per_byte.max(1e-12)
    }

    fn samples_are_old(&self) -> bool {
        self.samples.is_empty() || self.sample_age >= LOOKS_PER_SAMPLE
    }

    /// Seconds for a byte: of compressing or of sending, whichever takes longer.
    fn cost(&self, codec: Codec) -> f64 {
        let sample = self.samples.iter().find(|sample| sample.codec == codec);
        sample.map_or(self.link_s_per_byte, |sample| {
            sample.s_per_byte.max(sample.share * self.link_s_per_byte)
        })
    }

    fn choose(&mut self, now: Codec) -> (Codec, CodecReason) {
        let known = self.samples.iter().map(|sample| sample.codec);
        let best = known.fold(Codec::None, |best, next| {
            if self.cost(next) < self.cost(best) {
                next
            } else {
                best
            }
        });
        if self.cost(now) <= GAIN_MIN * self.cost(best) {
            return (now, self.reason(now));
        }
        if best != Codec::None {
            self.trial = Some(Trial {
                codec: now,
                s_per_byte: self.s_per_byte,
                looks: 0,
            });
        }
        (best, self.reason(best))
    }

    fn reason(&self, codec: Codec) -> CodecReason {
        let bytes_per_s = self.bytes_per_s();
        let sample = self.samples.iter().find(|sample| sample.codec == codec);
        match sample {
            Some(sample) => CodecReason::Pays {
                ratio: 1.0 / sample.share,
                bytes_per_s,
            },
            None => CodecReason::DoesNotPay { bytes_per_s },
        }
    }
}

/// Compresses a part of a body with each of `codecs`.
pub(crate) fn sample(body: &[Bytes], codecs: &[Codec], clock: impl Fn() -> Instant) -> Vec<Sample> {
    let part = Bytes::from(part(body));
    let bytes = part.len().max(1) as f64;
    let one = |codec: Codec| {
        let began = clock();
        let compressed = codec.compress(vec![part.clone()]);
        let took = clock().saturating_duration_since(began).as_secs_f64();
        let compressed: usize = compressed.iter().map(Bytes::len).sum();
        Sample {
            codec,
            s_per_byte: took / bytes,
            share: compressed as f64 / bytes,
        }
    };
    let fastest = |&codec: &Codec| {
        let tries = (0..TRIES).map(|_| one(codec));
        tries.min_by(|one, other| one.s_per_byte.total_cmp(&other.s_per_byte))
    };
    codecs.iter().filter_map(fastest).collect()
}

/// What a sample is taken of: slices from all over a body, because its columns, one behind the other, are of all kinds.
fn part(body: &[Bytes]) -> Vec<u8> {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    // Each begins where a number does, and none has anything of another one.
    let apart = (body_bytes / SLICES / 8 * 8).max(SLICE_BYTES);
    let mut part = Vec::with_capacity(SLICES * SLICE_BYTES);
    for at in (0..body_bytes).step_by(apart).take(SLICES) {
        let (mut skipped, mut left) = (at, SLICE_BYTES);
        for piece in body {
            let from = skipped.min(piece.len());
            let until = piece.len().min(from + left);
            part.extend_from_slice(&piece[from..until]);
            (skipped, left) = (skipped - from, left - (until - from));
        }
    }
    part
}

#[cfg(test)]
mod tests;
