//! The data plane beside Drill's own classes: our tunnel sends to its `DataServer`, its `DataTunnel` to our server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date64Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, IntervalDayTimeArray,
    IntervalMonthDayNanoArray, IntervalYearMonthArray, RecordBatch, StringArray,
    Time32MillisecondArray, TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{Field, Int64Type, IntervalDayTime, IntervalMonthDayNano, Schema};
use bit_data::drill::{
    BatchStream, Credit, DataTunnel, Fragments, FragmentsOptions, Input, NoEvents, Order,
    TunnelError, TunnelOptions,
};
use bit_data::{DataClient, DataServer, DataServerOptions, DataTarget, NoStreams};
use futures::StreamExt;
use protos::id::{FragmentId, MajorFragmentId, MinorFragmentId, QueryId};
use record_batch::metadata::MINOR_TYPE;
use rpc_bus::ledger::{Ledger, Limits};
use rpc_bus::{RetryOptions, RetryPolicy};
use tests::interop::{DrillDataPlane, available};
use tokio::task::block_in_place;

use crate::nodes::{bus, eventually_zero};

/// The query of the harness.
const QUERY: QueryId = QueryId { part1: 1, part2: 2 };
const TO: [MinorFragmentId; 1] = [MinorFragmentId(0)];

fn fragment(major: i32) -> FragmentId {
    FragmentId::new(QUERY, major, 0)
}

/// Both sides: Drill's data plane in a JVM of its own, and ours.
struct Scene {
    drill: DrillDataPlane,
    server: DataServer,
    fragments: Fragments,
    client: DataClient,
    ledger: Ledger,
}

impl Scene {
    /// `None` where there is no Java.
    async fn start() -> Option<Self> {
        let started = block_in_place(DrillDataPlane::start);
        let drill = available("Drill's data plane", started)?;
        let ledger = Ledger::root("test", Limits::default());
        let options = FragmentsOptions::default();
        let fragments = Fragments::new(options, &ledger, Arc::new(NoEvents));
        let server = DataServer::bind(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            bus(),
            DataServerOptions::default(),
            ledger.clone(),
            fragments.clone(),
            Arc::new(NoStreams),
        );
        let target = DataTarget::new(drill.data(), ledger.clone());
        let policy = RetryPolicy::try_new(RetryOptions::default()).unwrap();
        Some(Self {
            server: server.await.unwrap(),
            client: DataClient::try_new(target, bus(), policy).unwrap(),
            drill,
            fragments,
            ledger,
        })
    }

    fn command(&mut self, command: &str) -> Vec<String> {
        block_in_place(|| self.drill.command(command)).unwrap()
    }

    fn line_after(&self, prefix: &str) -> String {
        block_in_place(|| self.drill.line_after(prefix)).unwrap()
    }

    fn port(&self) -> u16 {
        self.server.local_addr().port()
    }

    /// What fragment `major`:0 of Drill sends to the same one of ours.
    fn receive(&self, major: i32, credit: Credit) -> BatchStream {
        self.receive_from(major, major, credit)
    }

    fn receive_from(&self, major: i32, sending: i32, credit: Credit) -> BatchStream {
        let input = Input {
            sending_major: MajorFragmentId(sending),
            senders: TO.to_vec(),
            order: Order::AsTheyCome,
            credit,
        };
        let streams = self
            .fragments
            .register(fragment(major), vec![input], &self.ledger);
        streams.unwrap().remove(0).remove(0)
    }

    fn tunnel(&self, major: i32) -> DataTunnel {
        let (client, options) = (self.client.clone(), TunnelOptions::default());
        DataTunnel::new(
            client,
            bus(),
            fragment(major),
            MajorFragmentId(major),
            options,
        )
    }

    async fn stop(self) {
        drop((self.client, self.drill));
        self.server.shutdown(Duration::from_secs(10)).await;
        eventually_zero(&self.ledger).await;
    }
}

/// A column of each scalar type of Drill that its vectors still have, with nulls and without.
fn scalars(seed: i32, rows: i32) -> RecordBatch {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (nullable, mode) in [(true, "optional"), (false, "required")] {
        for (name, minor, array) in columns(seed, rows, nullable) {
            let metadata = minor.map(|minor| (MINOR_TYPE.to_owned(), minor.to_owned()));
            let data_type = array.data_type().clone();
            let field = Field::new(format!("{name}_{mode}"), data_type, nullable);
            fields.push(field.with_metadata(metadata.into_iter().collect()));
            arrays.push(array);
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Name, Drill's type where it is not the one the Arrow type maps to, and values.
type Column = (&'static str, Option<&'static str>, ArrayRef);

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "any value of a type will do"
)]
fn columns(seed: i32, rows: i32, nullable: bool) -> Vec<Column> {
    let values = move || {
        (0..rows).map(move |row| {
            let value = seed.wrapping_mul(7919).wrapping_add(row * 31);
            (!nullable || value % 3 != 0).then_some(value)
        })
    };
    macro_rules! column {
        ($name:literal $($minor:literal)?, $array:ty, $value:ident => $made:expr) => {{
            let values = values().map(|value| value.map(|$value| $made));
            let minor = None$(.or(Some($minor)))?;
            ($name, minor, Arc::new(values.collect::<$array>()) as ArrayRef)
        }};
    }
    let decimals = values().map(|value| value.map(|v| i128::from(v) * 1_000_000_007));
    let decimals = decimals.collect::<Decimal128Array>();
    let decimals = decimals.with_precision_and_scale(30, 6).unwrap();
    vec![
        column!("tinyint" "TINYINT", Int8Array, v => (v % 256 - 128) as i8),
        column!("smallint" "SMALLINT", Int16Array, v => v as i16),
        column!("int", Int32Array, v => v.wrapping_neg()),
        column!("bigint", Int64Array, v => i64::from(v) << 30),
        column!("uint1" "UINT1", UInt8Array, v => v as u8),
        column!("uint2" "UINT2", UInt16Array, v => v as u16),
        column!("uint4" "UINT4", UInt32Array, v => v as u32),
        column!("uint8" "UINT8", UInt64Array, v => (v as u64) << 31),
        column!("float4", Float32Array, v => v as f32 / 8.0),
        column!("float8", Float64Array, v => f64::from(v) / 1024.0),
        column!("bit", BooleanArray, v => v % 2 == 0),
        column!("varchar", StringArray, v => "ä".repeat(v as usize % 5) + &v.to_string()),
        column!("var16char" "VAR16CHAR", StringArray, v => format!("ö{v}")),
        column!("varbinary", BinaryArray, v => v.to_be_bytes()[..v as usize % 5].to_vec()),
        column!("date", Date64Array, v => i64::from(v % 20_000) * 86_400_000),
        column!("time", Time32MillisecondArray, v => v.rem_euclid(86_400_000)),
        column!("timestamp", TimestampMillisecondArray, v => i64::from(v) * 1_000_003),
        column!("intervalyear", IntervalYearMonthArray, v => v % 1000),
        column!("intervalday", IntervalDayTimeArray, v => IntervalDayTime::new(v % 500, v % 1_000_000)),
        column!("interval", IntervalMonthDayNanoArray, v => {
            IntervalMonthDayNano::new(v % 100, v % 30, i64::from(v % 1_000_000) * 1_000_000)
        }),
        ("vardecimal", None, Arc::new(decimals)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scalar_type_comes_back_from_drills_own_vectors_as_it_was_sent() {
    const BATCHES: i32 = 1_200;
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.command(&format!("echo 5 {}", scene.port()));
    let (mut stream, mut tunnel) = (scene.receive(5, Credit::NO_ADVICE), scene.tunnel(5));
    let batch = |seed: i32| scalars(seed, seed * 37 % 97);
    let sending = async {
        for seed in 1..=BATCHES {
            tunnel.send(&batch(seed), &TO).await.unwrap();
        }
        tunnel.end(&TO).await.unwrap();
        tunnel.flush().await.unwrap()
    };
    let receiving = async {
        let mut seeds = (1..=BATCHES).filter(|seed| batch(*seed).num_rows() > 0);
        let mut rows = 0;
        while let Some(next) = stream.next().await {
            let (sender, found) = next.unwrap();
            assert_eq!(sender, TO[0]);
            let seed = seeds.next().expect("a batch for each that was sent");
            same(&found, &batch(seed));
            rows += found.num_rows();
        }
        assert_eq!(seeds.next(), None, "batches are missing");
        rows
    };
    let (stats, rows) = tokio::join!(sending, receiving);
    assert_eq!(stats.batches, 1_201);
    assert!(rows > 50_000, "{rows}");
    let answers = scene.line_after("echoed 5 ");
    assert_eq!(answers, "batches=1201 taken=1201 refused=0 failed=0");
    drop((stream, tunnel));
    scene.stop().await;
}

/// The same columns, name by name and value by value; what a null row holds is nobody's business.
fn same(found: &RecordBatch, sent: &RecordBatch) {
    assert_eq!(found.num_columns(), sent.num_columns());
    assert_eq!(found.num_rows(), sent.num_rows());
    let fields = sent.schema().fields().clone();
    for (field, (found_column, column)) in fields
        .iter()
        .zip(found.columns().iter().zip(sent.columns()))
    {
        assert_eq!(found_column, column, "{}", field.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_window_is_three_until_drill_answers_and_its_refusal_is_an_error() {
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    scene.command("hold 6");
    let mut tunnel = scene.tunnel(6);
    for seed in 0..3 {
        tunnel.send(&scalars(seed, 5), &TO).await.unwrap();
    }
    for _ in 0..3 {
        scene.line_after("holds 6");
    }
    let batch = scalars(3, 5);
    let mut fourth = Box::pin(tunnel.send(&batch, &TO));
    assert!(futures::poll!(&mut fourth).is_pending());
    let said = scene.command("refuse 7");
    assert!(said.is_empty(), "a fourth one was not to be sent: {said:?}");
    scene.command("release 6");
    fourth.await.unwrap();
    assert_eq!(tunnel.flush().await.unwrap().batches, 4);

    let mut refused = scene.tunnel(7);
    refused.send(&batch, &TO).await.unwrap();
    let error = refused.flush().await.unwrap_err();
    assert!(matches!(error, TunnelError::Refused { .. }), "{error}");
    tunnel.send(&batch, &TO).await.unwrap();
    tunnel.flush().await.unwrap();
    drop((tunnel, refused));
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drills_window_follows_our_answers_and_it_hears_our_refusals() {
    const BATCHES: i64 = 1_000;
    let Some(mut scene) = Scene::start().await else {
        return;
    };
    // Six are answered when they come; three may be unanswered, or twenty where we have said so.
    for (major, credit, unread) in [(8, 0, 9), (9, 20, 26)] {
        let mut stream = scene.receive(major, Credit::of_batches(credit));
        scene.command(&format!("flood {major} {} {BATCHES}", scene.port()));
        scene.line_after(&format!("sent {major} {}", unread - 1));
        // A command takes its time; a sender that went on would be seen.
        let more = scene.command(&format!("refuse 9{major}"));
        let one_more = format!("sent {major} {unread}");
        assert!(!more.contains(&one_more), "{more:?}");
        let mut numbers = Vec::new();
        while let Some(next) = stream.next().await {
            let (_, batch) = next.unwrap();
            numbers.push(batch.column(0).as_primitive::<Int64Type>().value(0));
        }
        assert_eq!(numbers, (0..BATCHES).collect::<Vec<_>>());
        let answers = scene.line_after(&format!("flooded {major} "));
        assert_eq!(answers, "batches=1000 taken=1000 refused=0 failed=0");
        drop(stream);
    }
    // Another stage than the expected one sends.
    let stream = scene.receive_from(10, 77, Credit::NO_ADVICE);
    let flood = |major: i32| format!("flood {major} {} 20", scene.port());
    let (stranger, gone, early) = (flood(10), flood(10), flood(11));
    scene.command(&stranger);
    let answers = scene.line_after("flooded 10 ");
    assert_eq!(answers, "batches=20 taken=0 refused=20 failed=0");
    // It has ended: whatever comes is taken, and dropped.
    drop(stream);
    scene.command(&gone);
    let answers = scene.line_after("flooded 10 ");
    assert_eq!(answers, "batches=20 taken=20 refused=0 failed=0");
    // Before the fragment is there.
    scene.command(&early);
    scene.line_after("sent 11 2");
    let late = scene.receive(11, Credit::NO_ADVICE);
    assert_eq!(late.count().await, 20);
    let answers = scene.line_after("flooded 11 ");
    assert_eq!(answers, "batches=20 taken=20 refused=0 failed=0");
    scene.stop().await;
}
