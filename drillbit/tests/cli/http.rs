//! `serve --http-port`: health, metrics, and what is not there.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::program::{ALL_PORTS, Served, run};

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Asks for a path, with further lines of the head.
pub(crate) fn get(node: &Served, path: &str, head: &str) -> Answer {
    ask(node, "GET", path, head)
}

/// The same with any method.
pub(crate) fn ask(node: &Served, method: &str, path: &str, head: &str) -> Answer {
    let host = node.http.as_deref().unwrap();
    ask_as(host, node, method, path, head)
}

/// The same by another name.
fn ask_as(host: &str, node: &Served, method: &str, path: &str, head: &str) -> Answer {
    let address = node.http.as_deref().unwrap();
    ask_at(address, host, (method, path), head)
}

/// The same of any node.
pub(crate) fn ask_at(
    address: &str,
    host: &str,
    (method, path): (&str, &str),
    head: &str,
) -> Answer {
    let mut socket = TcpStream::connect(address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// A page of metrics, read as strictly as it is written: `# HELP` and `# TYPE` before the samples of
/// each family, no family twice, nothing that is not a number.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Names as the page declares them, with their types.
    families: HashMap<String, String>,
    /// Values by name and labels.
    pub(crate) samples: HashMap<String, f64>,
}

impl Metrics {
    pub(crate) fn scrape(node: &Served) -> Self {
        Self::scrape_at(node.http.as_deref().unwrap())
    }

    pub(crate) fn scrape_at(address: &str) -> Self {
        let answer = ask_at(address, address, ("GET", "/metrics"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer
                .head
                .contains("content-type: application/openmetrics-text")
        );
        Self::parse(&answer.body)
    }

    fn parse(text: &str) -> Self {
        let (mut page, mut helped, mut current) = (Self::default(), None, String::new());
        let text = text.strip_suffix("# EOF\n").unwrap();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.len() > 10, "{line}");
                helped = Some(name.to_owned());
            } else if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                assert_eq!(
                    helped.take().as_deref(),
                    Some(name),
                    "HELP comes first: {line}"
                );
                name.clone_into(&mut current);
                let twice = page.families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(twice, None, "{line}");
            } else {
                page.sample(line, &current);
            }
        }
        page
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let bare = name.split('{').next().unwrap();
        let suffixes: &[&str] = match self.families[family].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{other}"),
        };
        let belongs = suffixes
            .iter()
            .any(|suffix| bare == format!("{family}{suffix}"));
        assert!(belongs, "{line} is no sample of {family}");
        let twice = self.samples.insert(name.to_owned(), value.parse().unwrap());
        assert_eq!(twice, None, "{line}");
    }

    /// Whether it only grows.
    pub(crate) fn is_counter(&self, sample: &str) -> bool {
        let bare = sample.split('{').next().unwrap();
        let family = bare.strip_suffix("_total");
        family.is_some_and(|family| {
            self.families
                .get(family)
                .is_some_and(|kind| kind == "counter")
        })
    }

    pub(crate) fn value(&self, sample: &str) -> f64 {
        self.samples.get(sample).copied().unwrap_or_default()
    }
}

#[test]
fn each_plane_holds_its_own_part_of_the_memory() {
    let node = Served::start_with(&[&ALL_PORTS[..], &["--memory", "512"]].concat());
    let metrics = Metrics::scrape(&node);
    let of = |what: &str, ledger: &str, kind: &str| {
        let labels = format!("ledger=\"{ledger}\",kind=\"{kind}\"");
        let sample = format!("drillbit_ledger_{what}{{{labels}}}");
        metrics.samples[&sample]
    };
    for (ledger, mib) in [
        ("process", 256_u64),
        ("user connections", 128),
        ("control connections", 32),
        ("data connections", 96),
    ] {
        let limit = of("limit", ledger, "bytes");
        assert_eq!(limit.to_string(), (mib << 20).to_string(), "{ledger}");
        let tasks = of("used", ledger, "tasks");
        assert!(tasks >= 1.0, "at least the one that accepts: {ledger}");
    }
}

#[test]
fn health_is_told_and_what_is_not_there_says_what_is() {
    let node = Served::start_with(&["--http-port", "0"]);
    let healthy = get(&node, "/healthz", "");
    assert_eq!((healthy.status, healthy.body.trim_end()), (200, "ok"));
    let missing = get(&node, "/nowhere", "");
    assert_eq!(missing.status, 404);
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/nodes"] {
        assert!(missing.body.contains(path), "{missing:?}");
    }
    node.end("TERM").well();
}

#[test]
fn the_page_of_metrics_is_well_formed_and_the_document_lists_its_families() {
    let node = Served::start_with(&["--http-port", "0"]);
    node.sql(&["-c", "select 1 as one"]).well();
    let page = Metrics::scrape(&node);
    let document = include_str!("../../METRICS.md");
    for (name, kind) in &page.families {
        let suffix = if kind == "counter" { "_total" } else { "" };
        let row = format!("| `{name}{suffix}` | {kind} |");
        assert!(document.contains(&row), "{row}");
    }
    assert!(page.families.len() > 30, "{page:?}");
}

#[test]
fn counters_move_with_queries() {
    let node = Served::start_with(&["--http-port", "0"]);
    let before = Metrics::scrape(&node);
    node.sql(&["-c", "select 1 as one"]).well();
    node.sql(&["-c", "select * from nowhere"]).with(1);
    let after = Metrics::scrape(&node);
    let grown = |sample: &str| after.value(sample) - before.value(sample);
    for (sample, by) in [
        ("drillbit_queries_total{outcome=\"completed\"}", 1.0),
        ("drillbit_queries_total{outcome=\"failed\"}", 1.0),
        ("drillbit_query_rows_total", 1.0),
        ("drillbit_connections_opened_total{plane=\"user\"}", 2.0),
        (
            "drillbit_requests_total{plane=\"user\",rpc=\"RUN_QUERY\",direction=\"received\"}",
            2.0,
        ),
        (
            "drillbit_requests_total{plane=\"user\",rpc=\"QUERY_RESULT\",direction=\"sent\"}",
            2.0,
        ),
        (
            "drillbit_request_handler_seconds_count{plane=\"user\",rpc=\"RUN_QUERY\"}",
            2.0,
        ),
    ] {
        assert!(
            (grown(sample) - by).abs() < 0.5,
            "{sample}: {}",
            grown(sample)
        );
    }
    assert!(grown("drillbit_socket_bytes_total{plane=\"user\",direction=\"sent\"}") > 100.0);
    assert!(after.value("process_resident_memory_bytes") > 1e6);
}

#[test]
fn where_everybody_may_read_a_node_is_asked_for_by_a_name_that_nobody_else_can_have() {
    let node = Served::start_with(&["--http-port", "0", "--advertised-host", "node1.example"]);
    let get_as = |host: &str, path: &str| ask_as(host, &node, "GET", path, "");
    for path in ["/api/v1/queries", "/api/v1/nodes", "/metrics"] {
        let refused = get_as("evil.example:8047", path);
        assert_eq!(refused.status, 403, "{refused:?}");
        let expected = "by its address, as localhost, or as node1.example";
        assert!(refused.body.contains(expected), "{refused:?}");
        for own in ["localhost:8047", "10.0.0.5", "node1.example:8047"] {
            assert_eq!(get_as(own, path).status, 200, "{own}");
        }
    }
    let drain = ask_as("evil.example", &node, "POST", "/api/v1/drain", "");
    assert_eq!(drain.status, 403, "{drain:?}");
    assert_eq!(get_as("evil.example", "/healthz").status, 200);
    node.end("TERM").well();
}

#[test]
fn there_is_no_http_server_unless_asked_for() {
    let node = Served::start();
    assert_eq!(node.http, None);
}

#[test]
fn others_may_not_watch_a_node_without_users() {
    let (folder, name) = (tempfile::tempdir().unwrap(), "drillbit.toml");
    let file = folder.path().join(name);
    std::fs::write(
        &file,
        "[http]\nenabled = true\nbind = \"0.0.0.0\"\nport = 0\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let stderr = run(&["serve", "--user-port", "0", "--config", file]).with(2);
    assert!(
        stderr.contains(&format!("{file}:3: http.bind is 0.0.0.0")),
        "{stderr}"
    );
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let (folder, name) = (tempfile::tempdir().unwrap(), "drillbit.toml");
    let file = folder.path().join(name);
    std::fs::write(
        &file,
        "[http]\nenabled = true\nport = 0\nheader_timeout_ms = 100\n",
    )
    .unwrap();
    let node = Served::start_with(&["--config", file.to_str().unwrap()]);
    let mut socket = TcpStream::connect(node.http.as_deref().unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(get(&node, "/healthz", "").status, 200);
}

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    let (folder, name) = (tempfile::tempdir().unwrap(), "drillbit.toml");
    let file = folder.path().join(name);
    std::fs::write(
        &file,
        "[http]\nenabled = true\nport = 0\nconnections_max = 1\n",
    )
    .unwrap();
    let node = Served::start_with(&["--config", file.to_str().unwrap()]);
    let address = node.http.as_deref().unwrap();
    let first = TcpStream::connect(address).unwrap();
    let mut second = TcpStream::connect(address).unwrap();
    second
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // Closed without a word, long before the first one's time is over.
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)));
    drop(first);
}
