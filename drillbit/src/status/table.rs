//! The status as tables for people.

use std::{fmt::Write as _, time::Duration};

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use unicode_width::UnicodeWidthStr;

use super::view::{NodeView, QueryView, StatusView, StreamView, TunnelView};

/// Longest statement in a table, in characters.
const STATEMENT_CHARS_MAX: usize = 60;

/// Whether the terminal may be told colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Coloured,
}

/// Nodes, then queries, tunnels and streams if there are any.
pub(crate) fn tables(status: &StatusView, style: Style) -> String {
    let mut out = String::new();
    let nodes = status.nodes.iter().map(node_row);
    let health = status
        .nodes
        .iter()
        .map(|node| node.health)
        .collect::<Vec<_>>();
    table(&mut out, NODES, nodes, style, &health);
    if !status.queries.is_empty() {
        out.push('\n');
        table(
            &mut out,
            QUERIES,
            status.queries.iter().map(query_row),
            style,
            &[],
        );
    }
    if !status.tunnels.is_empty() {
        out.push('\n');
        table(
            &mut out,
            TUNNELS,
            status.tunnels.iter().map(tunnel_row),
            style,
            &[],
        );
    }
    if !status.streams.is_empty() {
        out.push('\n');
        table(
            &mut out,
            STREAMS,
            status.streams.iter().map(stream_row),
            style,
            &[],
        );
        let (open, told) = (status.open_streams(), status.streams.len());
        if open > told {
            let _ = writeln!(out, "and {} more", open - told);
        }
    }
    out
}

/// Head of a column, and whether it holds numbers.
type Column = (&'static str, bool);

const NODES: &[Column] = &[
    ("NODE", false),
    ("STATE", false),
    ("HEALTH", false),
    ("BEAT", true),
    ("RTT P50", true),
    ("RTT P99", true),
    ("QUERIES", true),
    ("PORTS", false),
    ("VERSION", false),
    ("WHY", false),
];

const QUERIES: &[Column] = &[
    ("QUERY", false),
    ("USER", false),
    ("STATE", false),
    ("AGE", true),
    ("ROWS", true),
    ("SENT", true),
    ("STATEMENT", false),
];

const TUNNELS: &[Column] = &[
    ("PEER", false),
    ("STREAMS", true),
    ("WINDOW", true),
    ("WAITING", true),
    ("SENT", true),
    ("RECEIVED", true),
    ("CREDIT", true),
    ("STALLED", true),
    ("CREDIT WAIT", true),
];

const STREAMS: &[Column] = &[
    ("STREAM", false),
    ("PEER", false),
    ("END", false),
    ("WAITS FOR", false),
    ("CREDIT", true),
    ("WINDOW", true),
    ("WAITING", true),
    ("BATCHES", true),
    ("BYTES", true),
    ("CREDIT WAIT", true),
];

fn node_row(node: &NodeView) -> Vec<String> {
    let mut name = node.address.clone();
    if let Some(port) = node.control_port.or(node.user_port) {
        let _ = write!(name, ":{port}");
    }
    if node.local {
        name.push('*');
    }
    let ports = [
        ("user", node.user_port),
        ("data", node.data_port),
        ("http", node.http_port),
    ];
    let ports = ports.map(|(name, port)| port.map(|port| format!("{name} {port}")));
    vec![
        name,
        node.state.unwrap_or("-").to_owned(),
        node.health.to_owned(),
        node.beat_age_ms.map(time).unwrap_or_default(),
        node.rtt_ms.p50.map(time).unwrap_or_default(),
        node.rtt_ms.p99.map(time).unwrap_or_default(),
        node.queries_running
            .map(|count| count.to_string())
            .unwrap_or_default(),
        ports.into_iter().flatten().collect::<Vec<_>>().join(", "),
        node.version.clone().unwrap_or_default(),
        node.reason.clone(),
    ]
}

fn query_row(query: &QueryView) -> Vec<String> {
    vec![
        query.id.clone(),
        query.user.clone(),
        query.state.to_owned(),
        time(query.age_ms),
        HumanCount(query.rows_sent).to_string(),
        HumanBytes(query.bytes_sent).to_string(),
        beginning(&query.statement),
    ]
}

fn tunnel_row(tunnel: &TunnelView) -> Vec<String> {
    let bytes = |count| HumanBytes(count).to_string();
    vec![
        tunnel.peer.clone(),
        tunnel.streams.to_string(),
        bytes(tunnel.window_bytes),
        bytes(tunnel.waiting_bytes),
        bytes(tunnel.bytes_sent),
        bytes(tunnel.bytes_received),
        bytes(tunnel.credit_bytes),
        tunnel.waiting_senders.to_string(),
        time(tunnel.credit_wait_ms),
    ]
}

/// Only what this end knows.
pub(super) fn stream_row(stream: &StreamView) -> Vec<String> {
    let bytes = |count| HumanBytes(count).to_string();
    vec![
        stream.name(),
        stream.peer.clone(),
        stream.end.to_owned(),
        stream.waits_for.unwrap_or_default().to_owned(),
        bytes(stream.credit_bytes),
        stream.window_bytes.map(bytes).unwrap_or_default(),
        stream.waiting_bytes.map(bytes).unwrap_or_default(),
        HumanCount(stream.batches).to_string(),
        bytes(stream.bytes),
        stream.credit_wait_ms.map(time).unwrap_or_default(),
    ]
}

/// A time in the unit that suits it.
pub(crate) fn time(millis: f64) -> String {
    match millis {
        ..1.0 => format!("{:.0} us", millis * 1000.0),
        ..100.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        ..60_000.0 => format!("{:.1} s", millis / 1000.0),
        _ => HumanDuration(Duration::from_secs_f64(millis / 1000.0)).to_string(),
    }
}

/// The beginning of a statement.
pub(crate) fn beginning(statement: &str) -> String {
    let statement = statement.trim();
    match statement.char_indices().nth(STATEMENT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &statement[..end]),
        None => statement.to_owned(),
    }
}

/// Names and statements come from outside and must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(shown).collect()
}

fn table(
    out: &mut String,
    columns: &[Column],
    rows: impl Iterator<Item = Vec<String>>,
    style: Style,
    health: &[&str],
) {
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
            widest.max(columns[index].0.width())
        })
        .collect();
    let head = columns
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect::<Vec<_>>();
    line(out, columns, &widths, &head, None);
    for (index, row) in rows.iter().enumerate() {
        let colour = match (style, health.get(index)) {
            (Style::Coloured, Some(&health)) => colour(health),
            _ => None,
        };
        line(out, columns, &widths, row, colour);
    }
}

/// SGR parameters.
fn colour(health: &str) -> Option<&'static str> {
    match health {
        "suspect" => Some("33"),
        "down" => Some("31"),
        _ => None,
    }
}

fn line(
    out: &mut String,
    columns: &[Column],
    widths: &[usize],
    cells: &[String],
    colour: Option<&str>,
) {
    let mut line = String::new();
    for ((cell, (_, is_number)), width) in cells.iter().zip(columns).zip(widths) {
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        match is_number {
            true => line.extend([&padding, cell.as_str(), "  "]),
            false => line.extend([cell.as_str(), &padding, "  "]),
        }
    }
    let line = line.trim_end();
    match colour {
        Some(colour) => {
            let _ = writeln!(out, "\x1b[{colour}m{line}\x1b[0m");
        }
        None => {
            let _ = writeln!(out, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use protos::{
        coord::{DrillbitEndpoint, drillbit_endpoint::State},
        status::{Beats, ClusterStatus, Node, Query, node::Health},
    };

    use super::*;

    fn node(address: &str, health: Health) -> Node {
        Node {
            endpoint: Some(DrillbitEndpoint {
                address: Some(address.to_owned()),
                control_port: Some(31011),
                user_port: Some(31010),
                state: Some(State::Online.into()),
                ..DrillbitEndpoint::default()
            }),
            health: Some(health.into()),
            reason: Some("why".to_owned()),
            software_version: Some("1.0".to_owned()),
            beats: Some(Beats {
                age_us: Some(400_000),
                rtt_p50_us: Some(80),
                rtt_p99_us: Some(2_500),
                ..Beats::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn columns_stand_under_each_other() {
        let mut first = node("a", Health::Up);
        first.local = Some(true);
        let status = ClusterStatus {
            node: vec![first, node("node-b", Health::Down)],
            query: vec![Query {
                statement: Some("select\n1 \x1b[31m".to_owned()),
                ..Query::default()
            }],
            ..ClusterStatus::default()
        };
        let shown = tables(&status.into(), Style::Plain);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines[0],
            "NODE          STATE   HEALTH    BEAT  RTT P50  RTT P99  QUERIES  PORTS       VERSION  WHY"
        );
        assert_eq!(
            lines[1],
            "a:31011*      ONLINE  up      400 ms    80 us   2.5 ms           user 31010  1.0      why"
        );
        assert_eq!(
            lines[2],
            "node-b:31011  ONLINE  down    400 ms    80 us   2.5 ms           user 31010  1.0      why"
        );
        assert!(lines[5].ends_with("select 1  [31m"), "{shown}");
        assert!(!shown.contains('\x1b'));
    }

    #[test]
    fn trouble_is_coloured_where_colours_are_wanted() {
        let status = ClusterStatus {
            node: vec![node("a", Health::Up), node("b", Health::Suspect)],
            ..ClusterStatus::default()
        };
        let shown = tables(&status.into(), Style::Coloured);
        let coloured = shown.lines().map(|line| line.starts_with("\x1b[33m"));
        assert_eq!(coloured.collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn times_are_in_the_unit_that_suits_them() {
        let shown = [0.0, 0.08, 2.5, 123.4, 1_500.0, 90_000.0].map(time);
        assert_eq!(
            shown,
            ["0 us", "80 us", "2.5 ms", "123 ms", "1.5 s", "2 minutes"]
        );
    }
}
