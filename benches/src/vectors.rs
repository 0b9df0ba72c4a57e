//! Bench `vectors`: record batches to bodies and back, on one core, beside Arrow's own format and a plain copy.
//!
//! Large batches have 64 Ki rows of one column, `mixed20x100` has 20 columns of 100 rows, `mixed6x40` and `mixed6x10000`
//! are batches of about 4 KiB and 1 MiB. Decoding `first` batches includes the schema, decoding others does not. Units:
//! `GB_s` of the bytes in Drill's vectors, `Mvalues_s`, `us_batch`.
//!
//! | variant | what |
//! |---|---|
//! | `record-batch` | Drill's vectors: decoding checks every offset and all text, encoding gives chained pieces |
//! | `arrow-body` | the crate's Arrow bodies, which check as much |
//! | `arrow-ipc` | Arrow's own reader and writer of streams, the schema read and written each time |
//! | `memcpy` | the same bytes copied once |
//!
//! Where a body can be used as it is, decoding costs next to nothing and its `GB_s` says no more than that.

mod data;

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use protos::shared::RecordBatchDef;
use record_batch::{
    ArrowDecodeOptions, ArrowDecoder, ArrowEncoder, DecodeOptions, Decoder, Encoder, decode,
};

use crate::progress::Progress;
use crate::report::Report;
use crate::settings::Settings;
use crate::target::{Bound, Target};

/// Its cases.
pub(crate) const CASES: &[&str] = &data::CASES;
/// Whom ratios are to, unless another one is named.
pub(crate) const BASE: &str = "memcpy";
/// What it is expected to show.
pub(crate) const TARGETS: &[Target] = &[
    copy_ratio("decode/int64/required", 0.9),
    copy_ratio("decode/int64/nullable", 0.4).stretch(Bound::AtLeast(0.7)),
    copy_ratio("decode/float64/required", 0.9),
    copy_ratio("decode/float64/nullable", 0.4).stretch(Bound::AtLeast(0.7)),
    copy_ratio("encode/int64/required", 0.7).stretch(Bound::AtLeast(0.9)),
    copy_ratio("encode/int64/nullable", 0.3).stretch(Bound::AtLeast(0.6)),
    number("decode/utf8/required", "GB_s", 20.0).stretch(Bound::AtLeast(30.0)),
    number("decode/utf8-wide/required", "GB_s", 3.0).stretch(Bound::AtLeast(6.0)),
    number("encode/utf8/required", "GB_s", 20.0).stretch(Bound::AtLeast(40.0)),
    number("decode/decimal/required", "Mvalues_s", 150.0).stretch(Bound::AtLeast(300.0)),
    number("encode/decimal/required", "Mvalues_s", 100.0).stretch(Bound::AtLeast(200.0)),
    micros("decode/mixed20x100/same", 5.0).stretch(Bound::AtMost(3.0)),
    micros("decode/mixed20x100/first", 12.0).stretch(Bound::AtMost(8.0)),
];

const OURS: &str = "record-batch";
/// How long a variant is measured in a round.
const MEASURED: Duration = Duration::from_millis(60);
/// Batches are timed in blocks of about this long.
const BLOCK: Duration = Duration::from_micros(500);

const fn copy_ratio(case: &'static str, least: f64) -> Target {
    Target::ratio(case, "GB_s", OURS, BASE, Bound::AtLeast(least))
}

const fn number(case: &'static str, unit: &'static str, least: f64) -> Target {
    Target::number(case, unit, OURS, Bound::AtLeast(least))
}

const fn micros(case: &'static str, most: f64) -> Target {
    Target::number(case, "us_batch", OURS, Bound::AtMost(most))
}

/// Runs the benchmark.
pub(crate) fn run(settings: &Settings) -> Result<Report> {
    let progress = Progress::new();
    let mut report = Report::new("vectors");
    for round in 1..=settings.rounds {
        progress.begin(&format!("round {round} of {}", settings.rounds));
        for case in CASES.iter().filter(|case| settings.wants(case)) {
            for (variant, time, subject) in times(case)? {
                add(&mut report, (case, variant), time, &subject);
            }
        }
    }
    Ok(report)
}

type Timed = (&'static str, Duration, Subject);
/// Its name, and how one batch is timed.
type Variant = (&'static str, fn(&Subject) -> Result<Duration>);

fn times(case: &'static str) -> Result<Vec<Timed>> {
    let subject = Subject::new(case)?;
    let variants: &[Variant] = match case.split('/').next() {
        Some("decode") => &[
            (OURS, decode_vectors),
            ("arrow-body", decode_arrow_body),
            ("arrow-ipc", read_stream),
            ("memcpy", copy),
        ],
        _ => &[
            (OURS, encode_vectors),
            ("arrow-body", encode_arrow_body),
            ("arrow-ipc", write_stream),
            ("memcpy", copy),
        ],
    };
    let timed = variants
        .iter()
        .map(|(variant, run)| Ok((*variant, run(&subject)?, subject.clone())));
    timed.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far below 2^52 bytes and values"
)]
fn add(
    report: &mut Report,
    variant: (&'static str, &'static str),
    time: Duration,
    subject: &Subject,
) {
    let seconds = time.as_secs_f64();
    let values = subject.batch.num_rows() * subject.batch.num_columns();
    let samples = [
        ("GB_s", subject.body.len() as f64 / seconds / 1e9),
        ("Mvalues_s", values as f64 / seconds / 1e6),
        ("us_batch", seconds * 1e6),
    ];
    report.add_all(variant, samples);
}

/// One batch in all forms.
#[derive(Clone)]
struct Subject {
    /// Whether every decoding begins with a schema.
    is_first: bool,
    batch: RecordBatch,
    def: RecordBatchDef,
    body: Bytes,
    /// Schema and batch, as an Arrow body and as an Arrow stream.
    arrow: Bytes,
    /// The batch alone, as a later Arrow body of the same stream.
    arrow_later: Bytes,
}

impl Subject {
    fn new(case: &str) -> Result<Self> {
        let batch = data::batch(case);
        let sent = Encoder::try_new(&batch.schema())?.encode(&batch)?;
        let mut stream = ArrowEncoder::try_new(&batch.schema())?;
        let (arrow, later) = (stream.encode(&batch)?, stream.encode(&batch)?);
        let subject = Self {
            is_first: case.ends_with("/first"),
            body: sent.joined(),
            def: sent.def,
            arrow: arrow.concat().into(),
            arrow_later: later.concat().into(),
            batch,
        };
        let back = decode(&subject.def, &subject.body, &DecodeOptions::default())?;
        ensure!(
            back.columns() == subject.batch.columns(),
            "{case} came back changed"
        );
        Ok(subject)
    }
}

fn decode_vectors(subject: &Subject) -> Result<Duration> {
    if subject.is_first {
        let options = DecodeOptions::default();
        return time(|| Ok(decode(&subject.def, &subject.body, &options)?));
    }
    let mut decoder = Decoder::new(DecodeOptions::default());
    time(|| Ok(decoder.decode(&subject.def, &subject.body)?))
}

fn encode_vectors(subject: &Subject) -> Result<Duration> {
    let encoder = Encoder::try_new(&subject.batch.schema())?;
    time(|| Ok(encoder.encode(&subject.batch)?))
}

fn decode_arrow_body(subject: &Subject) -> Result<Duration> {
    let fresh = || ArrowDecoder::new(ArrowDecodeOptions::default());
    if subject.is_first {
        return time(|| Ok(fresh().decode(&subject.arrow)?));
    }
    let mut decoder = fresh();
    decoder.decode(&subject.arrow)?;
    time(|| Ok(decoder.decode(&subject.arrow_later)?))
}

fn encode_arrow_body(subject: &Subject) -> Result<Duration> {
    let mut encoder = ArrowEncoder::try_new(&subject.batch.schema())?;
    time(|| Ok(encoder.encode(&subject.batch)?))
}

fn read_stream(subject: &Subject) -> Result<Duration> {
    time(|| {
        let mut stream = StreamReader::try_new(&*subject.arrow, None)?;
        Ok(stream.next().context("the stream has no batch")??)
    })
}

fn write_stream(subject: &Subject) -> Result<Duration> {
    let mut out = Vec::with_capacity(2 * subject.arrow.len());
    time(|| {
        out.clear();
        let mut writer = StreamWriter::try_new(&mut out, &subject.batch.schema())?;
        Ok(writer.write(&subject.batch)?)
    })
}

fn copy(subject: &Subject) -> Result<Duration> {
    let mut out = vec![0; subject.body.len()];
    time(|| {
        black_box(&mut out).copy_from_slice(black_box(&subject.body));
        Ok(())
    })
}

/// The median time of one call, over blocks of calls.
fn time<T>(mut work: impl FnMut() -> Result<T>) -> Result<Duration> {
    let calls = calls_of_a_block(&mut work)?;
    let mut blocks = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < MEASURED || blocks.len() < 3 {
        let block = Instant::now();
        for _ in 0..calls {
            black_box(work()?);
        }
        blocks.push(block.elapsed() / calls);
    }
    blocks.sort_unstable();
    Ok(blocks[blocks.len() / 2])
}

fn calls_of_a_block<T>(work: &mut impl FnMut() -> Result<T>) -> Result<u32> {
    let (mut calls, begun) = (0, Instant::now());
    while begun.elapsed() < BLOCK {
        black_box(work()?);
        calls += 1;
    }
    Ok(calls)
}
