//! A consumer that stops in the middle of a large result: memory stays flat on both sides, and all
//! rows are there in the end.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tests::data;
use tests::interop::real_drillbit;
use tests::node::Node;
use tests::process::Process;

use crate::nodes::NODE;

const READER: &str = env!("CARGO_BIN_EXE_stalled-reader");
const START_WITHIN: Duration = Duration::from_mins(1);
const REST_WITHIN: Duration = Duration::from_secs(90);
const MIB: u64 = 1024 * 1024;

/// Starts a client that has stopped after its first batch of five million rows.
pub(super) fn stalled_reader(node: SocketAddr) -> Process {
    let sql = format!(
        "select id, v, s, d, n from dfs.`{}`",
        data::five_million().unwrap().display()
    );
    let process = Process::spawn(
        "a stalled reader",
        Command::new(READER).args([node.to_string(), sql]),
    )
    .unwrap();
    process.line_after("stalled", START_WITHIN).unwrap();
    process
}

/// Lets it read the rest.
fn finish(reader: &mut Process) {
    writeln!(reader.stdin().unwrap()).unwrap();
    let done = reader.line_after("done ", REST_WITHIN).unwrap();
    let totals = data::five_million_totals();
    assert_eq!(done, format!("rows={} sum={}", totals.rows, totals.ids));
}

/// Samples memory once a second while nothing should happen. The first seconds, in which buffers
/// fill, do not count.
fn assert_flat(what: &str, seconds: usize, limit: u64, mut resident: impl FnMut() -> u64) {
    let mut samples = Vec::new();
    for _ in 0..seconds {
        samples.push(resident() / MIB);
        thread::sleep(Duration::from_secs(1));
    }
    let settled = &samples[samples.len() / 4..];
    let (least, most) = (settled.iter().min().unwrap(), settled.iter().max().unwrap());
    assert!(most - least < 8, "memory of {what} in MiB: {samples:?}");
    assert!(*most < limit, "memory of {what} in MiB: {samples:?}");
}

#[test]
fn a_consumer_of_a_real_drill_that_stops_for_half_a_minute_keeps_its_memory() {
    let Some(drill) = real_drillbit() else { return };
    let mut reader = stalled_reader(drill.user());
    // The 16 MiB that the reader allows to be undelivered, the frames of a socket, and the program.
    assert_flat("the reader", 30, 100, || reader.resident_bytes().unwrap());
    finish(&mut reader);
}

#[test]
fn a_consumer_of_our_node_that_stops_keeps_the_memory_of_both() {
    let node = Node::start(NODE).unwrap();
    let mut reader = stalled_reader(node.user());
    assert_flat("the reader", 6, 100, || reader.resident_bytes().unwrap());
    assert_flat("the node", 6, 400, || node.resident_bytes().unwrap());
    finish(&mut reader);
}
