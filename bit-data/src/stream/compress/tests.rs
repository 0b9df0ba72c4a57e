//! The choice of a codec, on links of a made-up speed.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "made-up numbers of moderate size"
)]

use std::collections::VecDeque;

use rand::{RngCore, SeedableRng, rngs::StdRng};

use super::*;

const MIB: u64 = 1 << 20;

/// What the codecs do on one core, roughly.
const SAMPLES: [Sample; 3] = [
    Sample {
        codec: Codec::Lz4,
        s_per_byte: 1.3e-9,
        share: 0.6,
    },
    Sample {
        codec: Codec::Zstd,
        s_per_byte: 2.5e-9,
        share: 0.43,
    },
    Sample {
        codec: Codec::Snappy,
        s_per_byte: 1.4e-9,
        share: 0.6,
    },
];

fn adaptive(now: Instant) -> CodecChooser {
    CodecChooser::new(Compression::Adaptive, &Codec::ALL[1..], now)
}

/// Sends batches of a MiB over a link that takes `link_bytes_per_s`.
fn send(chooser: &mut CodecChooser, link_bytes_per_s: f64, samples: &[Sample], now: &mut Instant) {
    for _ in 0..500 {
        let used = samples
            .iter()
            .find(|sample| sample.codec == chooser.codec());
        let (share, cpu) = used.map_or((1.0, 0.0), |sample| (sample.share, sample.s_per_byte));
        let wire = (share * MIB as f64) as u64;
        let link = wire as f64 / link_bytes_per_s;
        let compress = cpu * MIB as f64;
        let waited = Duration::from_secs_f64((link - compress).max(0.0));
        *now += Duration::from_secs_f64(link.max(compress));
        if chooser.on_sent((MIB, wire), waited, *now).is_some() {
            chooser.on_samples(samples.to_vec());
        }
    }
}

fn chosen(link_bytes_per_s: f64, samples: &[Sample]) -> (Codec, CodecReason) {
    let mut now = Instant::now();
    let mut chooser = adaptive(now);
    send(&mut chooser, link_bytes_per_s, samples, &mut now);
    (chooser.codec(), chooser.reason())
}

#[test]
fn a_fast_link_gets_no_codec_and_is_never_sampled() {
    let mut now = Instant::now();
    let mut chooser = adaptive(now);
    for _ in 0..1_000 {
        now += Duration::from_micros(250);
        let waited = Duration::from_micros(200);
        assert_eq!(chooser.on_sent((MIB, MIB), waited, now), None);
    }
    assert_eq!(chooser.codec(), Codec::None);
    assert!(matches!(chooser.reason(), CodecReason::FastLink { .. }));
}

#[test]
fn a_slow_link_gets_the_codec_that_brings_most_over() {
    let (codec, reason) = chosen(100e6, &SAMPLES);
    assert_eq!(codec, Codec::Zstd);
    assert!(matches!(reason, CodecReason::Pays { .. }), "{reason:?}");
    assert_eq!(chosen(300e6, &SAMPLES).0, Codec::Lz4);
}

#[test]
fn on_no_link_it_is_far_from_the_best_codec() {
    for link_bytes_per_s in [50e6, 100e6, 150e6, 200e6, 300e6, 500e6, 800e6, 2e9] {
        let (began, link) = (Instant::now(), 1.0 / link_bytes_per_s);
        let (mut chooser, mut now) = (adaptive(began), began);
        for _ in 0..8 {
            send(&mut chooser, link_bytes_per_s, &SAMPLES, &mut now);
        }
        let took = now.duration_since(began).as_secs_f64();
        let cost = |sample: &Sample| sample.s_per_byte.max(sample.share * link);
        let best = SAMPLES.iter().map(cost).fold(link, f64::min);
        let share = 4_000.0 * MIB as f64 * best / took;
        assert!(share > 0.9, "{share} at {link_bytes_per_s}");
    }
}

/// As long as batches of before are on their way, it is they that set the pace.
#[test]
fn a_wide_window_does_not_hide_what_a_codec_brings() {
    const WINDOW: usize = 16;
    let began = Instant::now();
    let (mut chooser, mut now) = (adaptive(began), began);
    // When the link will have sent each batch that is on its way.
    let (mut on_its_way, mut sent_at) = (VecDeque::new(), began);
    for _ in 0..500 {
        let codec = chooser.codec();
        let used = SAMPLES.iter().find(|sample| sample.codec == codec);
        let (share, cpu) = used.map_or((1.0, 0.0), |sample| (sample.share, sample.s_per_byte));
        now += Duration::from_secs_f64(cpu * MIB as f64);
        let ready = now;
        if on_its_way.len() == WINDOW {
            now = now.max(on_its_way.pop_front().expect("it is full"));
        }
        let wire = (share * MIB as f64) as u64;
        sent_at = sent_at.max(now) + Duration::from_secs_f64(wire as f64 / 100e6);
        on_its_way.push_back(sent_at);
        if chooser.on_sent((MIB, wire), now - ready, now).is_some() {
            chooser.on_samples(SAMPLES.to_vec());
        }
    }
    assert_eq!(chooser.codec(), Codec::Zstd);
    let best = 500.0 * MIB as f64 * SAMPLES[1].share / 100e6;
    let share = best / sent_at.duration_since(began).as_secs_f64();
    assert!(share > 0.9, "{share}");
}

#[test]
fn batches_that_do_not_shrink_are_left_alone() {
    let noise = SAMPLES.map(|sample| Sample {
        share: 1.01,
        ..sample
    });
    let (codec, reason) = chosen(100e6, &noise);
    assert_eq!(codec, Codec::None);
    assert!(
        matches!(reason, CodecReason::DoesNotPay { .. }),
        "{reason:?}"
    );
}

#[test]
fn a_link_that_becomes_fast_loses_its_codec() {
    let mut now = Instant::now();
    let mut chooser = adaptive(now);
    send(&mut chooser, 100e6, &SAMPLES, &mut now);
    assert_ne!(chooser.codec(), Codec::None);
    send(&mut chooser, 4e9, &SAMPLES, &mut now);
    assert_eq!(chooser.codec(), Codec::None);
}

/// What looks like a slow link is a machine without time, on which a codec takes three times as long as its sample.
#[test]
fn a_codec_that_does_not_keep_its_promise_is_tried_ever_less() {
    let promised = [Sample {
        codec: Codec::Snappy,
        s_per_byte: 0.8e-9,
        share: 0.5,
    }];
    let (mut now, mut compressed) = (Instant::now(), 0);
    let mut chooser = adaptive(now);
    for _ in 0..20_000 {
        let is_compressed = chooser.codec() != Codec::None;
        compressed += u32::from(is_compressed);
        let nanos = if is_compressed { 2_500_000 } else { 1_300_000 };
        let wire = if is_compressed { MIB / 2 } else { MIB };
        now += Duration::from_nanos(nanos);
        let waited = Duration::from_nanos(nanos / 2);
        if chooser.on_sent((MIB, wire), waited, now).is_some() {
            chooser.on_samples(promised.to_vec());
        }
    }
    assert!((8..20_000 / 100).contains(&compressed), "{compressed}");
    assert!(matches!(chooser.reason(), CodecReason::DoesNotPay { .. }));
}

#[test]
fn only_codecs_that_the_receiver_takes_are_used() {
    let now = Instant::now();
    let fixed = |codec, taken: &[Codec]| {
        let chooser = CodecChooser::new(Compression::Fixed(codec), taken, now);
        (chooser.codec(), chooser.reason())
    };
    let (none, lz4) = (Codec::None, Codec::Lz4);
    assert_eq!(fixed(lz4, &[lz4]), (lz4, CodecReason::Fixed));
    assert_eq!(fixed(lz4, &[Codec::Zstd]), (none, CodecReason::NotTaken));
    assert_eq!(fixed(none, &[]), (none, CodecReason::Fixed));
    let adaptive = CodecChooser::new(Compression::Adaptive, &[], now);
    assert_eq!(adaptive.reason(), CodecReason::NotTaken);
}

#[test]
fn samples_say_how_much_a_codec_saves() {
    let body = [Bytes::from(vec![7; 10_000]), Bytes::from(vec![7; 100_000])];
    let samples = sample(&body, &Codec::ALL[1..], Instant::now);
    assert_eq!(samples.len(), 3);
    assert!(
        samples.iter().all(|sample| sample.share < 0.1),
        "{samples:?}"
    );
}

#[test]
fn a_sample_is_of_all_columns() {
    let mut noise = vec![0; 250_000];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    // One column of it, three of zeros: in many pieces, as bodies are.
    let zeros = vec![0; 250_000];
    let body = [noise, zeros.clone(), zeros.clone(), zeros].concat();
    for piece_bytes in [1_000, 70_001, body.len()] {
        let body: Vec<_> = body
            .chunks(piece_bytes)
            .map(Bytes::copy_from_slice)
            .collect();
        for sample in sample(&body, &Codec::ALL[1..], Instant::now) {
            assert!((0.2..0.35).contains(&sample.share), "{sample:?}");
        }
    }
}

#[test]
fn nothing_is_twice_in_a_sample() {
    for bytes in [0, 1, 4_095, 5_000, 65_536, 65_537, 70_000, 1_000_000] {
        let numbers: Vec<u8> = (0..=bytes / 8)
            .flat_map(|at: u64| at.to_le_bytes())
            .collect();
        let bytes = usize::try_from(bytes).expect("it is small");
        let body = Bytes::from(numbers).slice(..bytes);
        let pieces: Vec<_> = body.chunks(999).map(Bytes::copy_from_slice).collect();
        let part = part(&pieces);
        assert_eq!(part.len(), bytes.min(SLICES * SLICE_BYTES));
        let (numbers, _) = part.as_chunks::<8>();
        assert!(numbers.is_sorted_by_key(|number| u64::from_le_bytes(*number)));
        if bytes <= SLICES * SLICE_BYTES {
            assert_eq!(part, body);
        }
    }
}
