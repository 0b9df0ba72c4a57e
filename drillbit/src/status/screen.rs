//! The status as a screen: what `drillbit top` draws.

use indicatif::{HumanBytes, HumanCount};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Cell, Paragraph, Row, Table},
};

use super::{
    table::{printable, stream_row, time},
    view::{NodeView, QueryView, StatusView, StreamView, TunnelView},
};

/// Heights of a line of round trips, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Round trips shown for a node.
const ROUND_TRIPS: u16 = 30;
/// Width of a bar that shows how full a window is, in characters.
const FILLED_WIDTH: usize = 10;

/// The last picture, and whether it is still true.
#[derive(Debug)]
pub(crate) struct Screen {
    address: String,
    status: Option<StatusView>,
    /// Why there is no newer one.
    problem: Option<String>,
    /// Nobody looks until it is let go.
    pub(crate) is_held: bool,
}

impl Screen {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            status: None,
            problem: None,
            is_held: false,
        }
    }

    /// A new picture.
    pub(crate) fn show(&mut self, status: StatusView) {
        self.status = Some(status);
        self.problem = None;
    }

    /// There is none; the old one stays.
    pub(crate) fn lost(&mut self, problem: String) {
        self.problem = Some(problem);
    }
}

/// Draws it: a line on top, then nodes, peers, streams and queries, each as high as it needs to be.
pub(crate) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let height = |rows: usize| u16::try_from(rows + 3).unwrap_or(u16::MAX);
    let status = screen.status.as_ref();
    let nodes = status.map_or(&[][..], |status| &status.nodes);
    let tunnels = status.map_or(&[][..], |status| &status.tunnels);
    let streams = status.map_or(&[][..], |status| &status.streams);
    let queries = status.map_or(&[][..], |status| &status.queries);
    let [head, upper, middle, streaming, lower] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Max(height(nodes.len())),
        Constraint::Max(height(tunnels.len())),
        // Most of the time there are none.
        Constraint::Max(if streams.is_empty() {
            0
        } else {
            height(streams.len())
        }),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    draw_head(frame, head, screen, nodes);
    draw_nodes(frame, upper, nodes);
    draw_tunnels(frame, middle, tunnels);
    if !streams.is_empty() {
        draw_streams(frame, streaming, streams);
    }
    draw_queries(frame, lower, queries);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, screen: &Screen, nodes: &[NodeView]) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let left = match &screen.problem {
        Some(problem) => Line::styled(printable(problem), Style::new().fg(Color::Red)),
        None => Line::from(vec![
            Span::styled(printable(&screen.address), bold),
            Span::raw(format!("  {}", healths(nodes))),
        ]),
    };
    let right = if screen.is_held {
        "held  p go on  q quit"
    } else {
        "p hold  r refresh  q quit"
    };
    frame.render_widget(Paragraph::new(left), area);
    let keys = Paragraph::new(right)
        .alignment(Alignment::Right)
        .style(Style::new().fg(Color::DarkGray));
    let width = u16::try_from(right.len())
        .unwrap_or(u16::MAX)
        .min(area.width);
    let place = Rect {
        x: area.right() - width,
        width,
        ..area
    };
    frame.render_widget(keys, place);
}

/// "3 nodes: 2 up, 1 down".
fn healths(nodes: &[NodeView]) -> String {
    let count = |health| nodes.iter().filter(|node| node.health == health).count();
    let of_each = ["up", "suspect", "down", "unknown"].map(|health| (health, count(health)));
    let some = of_each.into_iter().filter(|(_, count)| *count > 0);
    let some: Vec<_> = some
        .map(|(health, count)| format!("{count} {health}"))
        .collect();
    let nouns = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("{} {nouns}: {}", nodes.len(), some.join(", "))
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, nodes: &[NodeView]) {
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(ROUND_TRIPS),
        Constraint::Length(7),
        Constraint::Fill(2),
    ];
    let heads = [
        "node",
        "state",
        "health",
        "beat",
        "p50",
        "p99",
        "round trips",
        "queries",
        "why",
    ];
    let rows = nodes.iter().map(|node| {
        let port = node.control_port.or(node.user_port).unwrap_or_default();
        let mark = if node.local { "*" } else { "" };
        let recent = node.beats.as_ref().map(|beats| bars(&beats.recent_rtt_ms));
        let text = |value: Option<f64>| value.map(time).unwrap_or_default();
        let cells = [
            format!("{}:{port}{mark}", node.address),
            node.state.unwrap_or("-").to_owned(),
            node.health.to_owned(),
            text(node.beat_age_ms),
            text(node.rtt_ms.p50),
            text(node.rtt_ms.p99),
            recent.unwrap_or_default(),
            node.queries_running
                .map(|count| count.to_string())
                .unwrap_or_default(),
            node.reason.clone(),
        ];
        row(cells).style(Style::new().fg(colour(node.health)))
    });
    draw_table(frame, area, " nodes ", (&widths, &heads), rows);
}

fn draw_tunnels(frame: &mut Frame<'_>, area: Rect, tunnels: &[TunnelView]) {
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(7),
        Constraint::Length(24),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(7),
        Constraint::Length(11),
    ];
    let heads = [
        "peer",
        "streams",
        "waiting of window",
        "sent",
        "received",
        "credit",
        "stalled",
        "credit wait",
    ];
    let rows = tunnels.iter().map(|tunnel| {
        let window = HumanBytes(tunnel.window_bytes);
        row([
            tunnel.peer.clone(),
            tunnel.streams.to_string(),
            format!(
                "{} {window}",
                filled(tunnel.waiting_bytes, tunnel.window_bytes)
            ),
            HumanBytes(tunnel.bytes_sent).to_string(),
            HumanBytes(tunnel.bytes_received).to_string(),
            HumanBytes(tunnel.credit_bytes).to_string(),
            tunnel.waiting_senders.to_string(),
            time(tunnel.credit_wait_ms),
        ])
    });
    draw_table(frame, area, " data plane ", (&widths, &heads), rows);
}

fn draw_streams(frame: &mut Frame<'_>, area: Rect, streams: &[StreamView]) {
    let number = Constraint::Length(11);
    let widths = [
        Constraint::Length(54),
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(9),
        number,
        number,
        number,
        number,
        number,
        number,
    ];
    let heads = [
        "stream",
        "peer",
        "end",
        "waits for",
        "credit",
        "window",
        "waiting",
        "batches",
        "bytes",
        "credit wait",
    ];
    let cells = streams.iter().map(stream_row);
    let rows =
        cells.map(|cells| Row::new(cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>()));
    draw_table(frame, area, " streams ", (&widths, &heads), rows);
}

fn draw_queries(frame: &mut Frame<'_>, area: Rect, queries: &[QueryView]) {
    let widths = [
        Constraint::Length(36),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Length(13),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    let heads = ["query", "user", "state", "age", "rows", "sent", "statement"];
    let rows = queries.iter().map(|query| {
        row([
            query.id.clone(),
            query.user.clone(),
            query.state.to_owned(),
            time(query.age_ms),
            HumanCount(query.rows_sent).to_string(),
            HumanBytes(query.bytes_sent).to_string(),
            query.statement.clone(),
        ])
    });
    draw_table(frame, area, " queries ", (&widths, &heads), rows);
}

fn draw_table<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'a str,
    (widths, heads): (&[Constraint], &[&'a str]),
    rows: impl Iterator<Item = Row<'a>>,
) {
    let head = Row::new(heads.iter().map(|head| Cell::from(*head)));
    let table = Table::new(rows, widths.iter().copied())
        .header(head.style(Style::new().fg(Color::DarkGray)))
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn row<'a, const N: usize>(cells: [String; N]) -> Row<'a> {
    Row::new(cells.map(|cell| Cell::from(printable(&cell))))
}

fn colour(health: &str) -> Color {
    match health {
        "suspect" => Color::Yellow,
        "down" => Color::Red,
        _ => Color::Reset,
    }
}

/// A line of bars, the newest on the right, the highest for the longest.
fn bars(round_trips_ms: &[f64]) -> String {
    let recent = &round_trips_ms[round_trips_ms.len().saturating_sub(ROUND_TRIPS.into())..];
    let longest = recent.iter().copied().fold(0.0, f64::max);
    recent.iter().map(|&millis| bar(millis, longest)).collect()
}

fn bar(millis: f64, longest: f64) -> char {
    let heights = (1_u32..).zip(BARS);
    // The lowest that reaches it.
    let reaches = |&(height, _): &(u32, char)| f64::from(height) / 8.0 * longest >= millis;
    heights
        .into_iter()
        .find(reaches)
        .map_or(BARS[7], |(_, bar)| bar)
}

/// How much of a window waits, as a bar.
fn filled(waiting: u64, window: u64) -> String {
    let width = FILLED_WIDTH as u64;
    let full = (waiting.saturating_mul(width))
        .checked_div(window)
        .unwrap_or(0)
        .min(width);
    let full = usize::try_from(full).unwrap_or(FILLED_WIDTH);
    format!("[{}{}]", "█".repeat(full), " ".repeat(FILLED_WIDTH - full))
}

#[cfg(test)]
mod tests {
    use protos::{
        coord::DrillbitEndpoint,
        status::{Beats, ClusterStatus, Node, Query, Stream, Tunnel, node::Health},
    };
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn shown(screen: &Screen, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    fn status() -> ClusterStatus {
        let beats = Beats {
            age_us: Some(200_000),
            recent_rtt_us: vec![100, 200, 800],
            ..Beats::default()
        };
        ClusterStatus {
            node: vec![Node {
                endpoint: Some(DrillbitEndpoint {
                    address: Some("node1".to_owned()),
                    control_port: Some(31011),
                    ..DrillbitEndpoint::default()
                }),
                health: Some(Health::Suspect.into()),
                beats: Some(beats),
                ..Node::default()
            }],
            query: vec![Query {
                statement: Some("select 1".to_owned()),
                ..Query::default()
            }],
            tunnel: vec![Tunnel {
                peer: Some("node1:31012".to_owned()),
                window_bytes: Some(100),
                waiting_bytes: Some(50),
                ..Tunnel::default()
            }],
            stream: vec![Stream {
                sending_major_fragment_id: Some(1),
                sending_minor_fragment_id: Some(7),
                is_sender: Some(true),
                is_waiting: Some(true),
                ..Stream::default()
            }],
        }
    }

    #[test]
    fn nodes_peers_streams_and_queries_are_on_the_screen() {
        let mut screen = Screen::new("node1:31010");
        screen.show(status().into());
        let shown = shown(&screen, (160, 20));
        for expected in [
            "node1:31010  1 node: 1 suspect",
            "node1:31011",
            "200 ms",
            "▁▂█",
            "[█████     ] 100 B",
            " 1:7 -> 0:0 ",
            "sender   credit ",
            "select 1",
            "q quit",
        ] {
            assert!(shown.contains(expected), "{expected}:\n{shown}");
        }
    }

    #[test]
    fn a_lost_node_is_told_above_its_last_picture() {
        let mut screen = Screen::new("node1:31010");
        screen.show(status().into());
        screen.lost("node1:31010: connection lost".to_owned());
        let shown = shown(&screen, (160, 20));
        assert!(
            shown.contains("connection lost") && shown.contains("node1:31011"),
            "{shown}"
        );
    }

    #[test]
    fn any_size_of_terminal_will_do() {
        let mut screen = Screen::new("node1:31010");
        screen.show(status().into());
        for size in [(0, 0), (1, 1), (10, 3), (40, 5), (500, 200)] {
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            terminal.draw(|frame| draw(frame, &screen)).unwrap();
        }
    }
}
