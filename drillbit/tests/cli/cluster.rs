//! Several nodes as processes: they find each other, and notice who stops, dies, comes back, or cannot be reached.

use std::{
    iter,
    net::TcpListener,
    ops::Range,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use fault_proxy::{Flow, Proxy};
use serde_json::Value;

use crate::program::{Served, run, signal};

/// Ports that nobody listens on. They are told to several processes before one of them binds them, so none is one that the
/// system gives to connections in the meantime, or another test takes.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    /// Systems give connections ports above 32,767.
    const PORTS: Range<u16> = 20_000..32_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Tests of two processes seldom begin at the same one.
    let begin = PORTS.start + u16::try_from(process::id() % 100).unwrap() * 100;
    let next = || begin + TAKEN.fetch_add(1, Ordering::Relaxed);
    let candidates = iter::repeat_with(next).take_while(|port| PORTS.contains(port));
    let free = candidates.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let ports: Vec<_> = free.take(count).collect();
    assert_eq!(ports.len(), count, "free ports below {}", PORTS.end);
    ports
}

/// Nodes by their control ports.
struct Cluster {
    ports: Vec<u16>,
    nodes: Vec<Option<Served>>,
}

impl Cluster {
    fn start(count: usize) -> Self {
        let ports = free_ports(count);
        let mut cluster = Self {
            nodes: ports.iter().map(|_| None).collect(),
            ports,
        };
        for index in 0..count {
            cluster.start_again(index);
        }
        cluster
    }

    fn start_again(&mut self, index: usize) {
        let peers = self.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let peers = peers.collect::<Vec<_>>().join(",");
        let port = self.ports[index].to_string();
        self.nodes[index] = Some(serve(&["--control-port", &port, "--peers", &peers]));
    }

    fn node(&self, index: usize) -> &Served {
        self.nodes[index].as_ref().unwrap()
    }

    /// Waits until every node in `watchers` sees the nodes as wanted, by index.
    fn all_see(&self, watchers: &[usize], wanted: &[(usize, &str)]) {
        for &watcher in watchers {
            let what = format!("{watcher} sees {wanted:?}");
            self.node(watcher).wait_for_status(&what, |status| {
                let sees = |&(index, health): &(usize, &str)| self.health(status, index) == health;
                wanted.iter().all(sees)
            });
        }
    }

    fn health<'a>(&self, status: &'a Value, index: usize) -> &'a str {
        of_port(status, self.ports[index])["health"]
            .as_str()
            .unwrap()
    }
}

/// Ten beats a second, so that the tests are short.
fn serve(arguments: &[&str]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("drillbit.toml");
    std::fs::write(&file, "[cluster]\nbeat_interval_ms = 100\n").unwrap();
    let config = ["--config", file.to_str().unwrap()];
    Served::start_with(&[arguments, &config].concat())
}

pub(crate) fn of_port(status: &Value, control_port: u16) -> &Value {
    let mut nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .find(|node| node["control_port"] == control_port)
        .unwrap()
}

#[test]
fn five_nodes_see_each_other_stop_die_and_come_back() {
    let mut cluster = Cluster::start(5);
    let all_up: Vec<_> = (0..5).map(|index| (index, "up")).collect();
    cluster.all_see(&[0, 1, 2, 3, 4], &all_up);
    let status = cluster.node(0).status();
    assert_eq!(
        status["nodes"][0]["control_port"], cluster.ports[0],
        "itself first"
    );
    for index in 1..5 {
        let node = of_port(&status, cluster.ports[index]);
        assert_eq!(node["state"], "ONLINE");
        assert!(
            node["user_port"].is_u64() && node["version"].is_string(),
            "{node}"
        );
        assert!(node["rtt_ms"]["p50"].as_f64().unwrap() > 0.0, "{node}");
        assert!(node["beats"]["clock_skew_ms"].is_number(), "{node}");
        assert!(node["memory_bytes_max"].as_u64().unwrap() > 0, "{node}");
        assert!(node["beats"]["recent_rtt_ms"][0].is_number(), "{node}");
    }

    signal(cluster.node(1).pid(), "STOP");
    cluster.all_see(&[0, 2, 3, 4], &[(1, "down"), (4, "up"), (2, "up")]);
    let stderr = run(&["status", "--connect", &cluster.node(0).address]).with(1);
    assert!(stderr.contains("1 of 5 nodes are down"), "{stderr}");
    signal(cluster.node(1).pid(), "CONT");
    cluster.all_see(&[0, 1, 2, 3, 4], &all_up);

    let before = of_port(&cluster.node(0).status(), cluster.ports[2])["incarnation"].clone();
    let killed = cluster.nodes[2].take().unwrap();
    killed.end("KILL");
    cluster.all_see(&[0, 1, 3, 4], &[(2, "down")]);
    cluster.start_again(2);
    cluster.all_see(&[0, 1, 2, 3, 4], &all_up);
    let after = of_port(&cluster.node(0).status(), cluster.ports[2])["incarnation"].clone();
    assert_ne!(before, after, "another process");
    for node in cluster.nodes.into_iter().flatten() {
        node.end("TERM").well();
    }
}

#[test]
fn round_trips_are_measured_on_data_connections_too() {
    let ports = free_ports(3);
    let peers = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let peers = peers.collect::<Vec<_>>().join(",");
    let start = |index: usize, more: &[&str]| {
        let port = ports[index].to_string();
        serve(&[&["--control-port", &port, "--peers", &peers], more].concat())
    };
    let one = start(0, &["--data-port", "0", "--http-port", "0"]);
    let (other, without) = (start(1, &["--data-port", "0"]), start(2, &[]));
    let is_measured = |status: &Value, index: usize| {
        let node = of_port(status, ports[index]);
        node["data_rtt_ms"]["p50"]
            .as_f64()
            .is_some_and(|p50| p50 > 0.0)
    };
    let measures = |node: &Served, index: usize| {
        node.wait_for_status("both are measured", |status| {
            is_measured(status, index) && of_port(status, ports[2])["health"] == "up"
        })
    };
    let status = measures(&one, 1);
    measures(&other, 0);
    let node = of_port(&status, ports[2]);
    assert!(
        node["data_rtt_ms"]["p50"].is_null(),
        "it has no data server: {node}"
    );
    let page = crate::http::get(&one, "/api/v1/heartbeats", "");
    assert!(page.body.contains("\"data_rtt_ms\":{\"p50\":"), "{page:?}");
    let beats: Value = serde_json::from_str(&page.body).unwrap();
    for node in beats.as_array().unwrap() {
        assert!(
            node["rtt_histogram"]["count"].as_u64().unwrap() > 0,
            "{node}"
        );
        assert_eq!(node["restarts"], 0, "{node}");
        assert!(node["suspected"].is_u64(), "{node}");
    }

    signal(other.pid(), "STOP");
    one.wait_for_status("it is down, and its data connection closed", |status| {
        of_port(status, ports[1])["health"] == "down" && !is_measured(status, 1)
    });
    signal(other.pid(), "CONT");
    measures(&one, 1);
    for node in [one, other, without] {
        node.end("TERM").well();
    }
}

#[test]
fn a_node_that_is_drained_says_so_until_it_has_left() {
    let mut cluster = Cluster::start(2);
    cluster.all_see(&[0, 1], &[(0, "up"), (1, "up")]);
    let (client, _) = crate::api::begin(cluster.node(1), crate::api::ENDLESS);
    run(&["drain", "--no-wait", "--connect", &cluster.node(1).address]).well();
    let port = cluster.ports[1];
    cluster
        .node(0)
        .wait_for_status("it is quiescent", |status| {
            of_port(status, port)["state"] == "QUIESCENT"
        });
    assert_eq!(
        of_port(&cluster.node(0).status(), port)["queries_running"],
        1
    );
    assert_eq!(cluster.nodes[1].take().unwrap().end("KILL").code, None);
    crate::program::finish(client).with(3);
    cluster.all_see(&[0], &[(1, "down")]);
    cluster.nodes[0].take().unwrap().end("TERM").well();
}

#[test]
fn a_node_that_has_left_is_offline_and_not_missed() {
    let mut cluster = Cluster::start(2);
    cluster.all_see(&[0, 1], &[(0, "up"), (1, "up")]);
    run(&["drain", "--connect", &cluster.node(1).address]).well();
    cluster.nodes[1].take().unwrap().ended().well();
    cluster.all_see(&[0], &[(1, "down")]);
    assert_eq!(
        of_port(&cluster.node(0).status(), cluster.ports[1])["state"],
        "OFFLINE"
    );
    run(&["status", "--connect", &cluster.node(0).address]).well();
    cluster.nodes[0].take().unwrap().end("TERM").well();
}

#[test]
fn nodes_that_cannot_reach_each_other_think_each_other_down() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [left, right] = free_ports(2)[..] else {
        unreachable!()
    };
    let proxy = |port: u16| Proxy::start(([127, 0, 0, 1], port).into(), 1);
    let (to_left, to_right) = runtime.block_on(async { tokio::join!(proxy(left), proxy(right)) });
    let (to_left, to_right) = (to_left.unwrap(), to_right.unwrap());
    let start = |port: u16, other: &Proxy| {
        let other = other.addr().to_string();
        serve(&["--control-port", &port.to_string(), "--peers", &other])
    };
    let (one, other) = (start(left, &to_right), start(right, &to_left));
    let sees = |node: &Served, proxy: &Proxy, health: &str| {
        let port = proxy.addr().port();
        node.wait_for_status(health, |status| of_port(status, port)["health"] == health);
    };
    let both_see = |health| {
        sees(&one, &to_right, health);
        sees(&other, &to_left, health);
    };
    both_see("up");
    for proxy in [&to_left, &to_right] {
        proxy.set_both(|faults| faults.flow = Flow::Lost);
    }
    both_see("down");
    for proxy in [&to_left, &to_right] {
        proxy.set_both(|faults| faults.flow = Flow::Passing);
    }
    both_see("up");
    let flaps = of_port(&one.status(), to_right.addr().port())["beats"]["flaps"].clone();
    assert_eq!(flaps, 1);
    one.end("TERM").well();
    other.end("TERM").well();
}

#[test]
fn a_node_is_no_other_one_by_another_name() {
    let port = free_ports(1)[0].to_string();
    let node = serve(&[
        "--control-port",
        &port,
        "--peers",
        &format!("localhost:{port}"),
    ]);
    node.wait_for_log(&["listed by another name", &format!("localhost:{port}")]);
    node.wait_for_status("it is alone", |status| {
        status["nodes"].as_array().unwrap().len() == 1 && status["nodes"][0]["local"] == true
    });
    node.end("TERM").well();
}

#[test]
fn nodes_that_others_reach_have_hosts_of_their_own() {
    let arguments = ["serve", "--user-port", "0", "--insecure-no-auth"];
    let told = |more: &[&str]| run(&[&arguments[..], more].concat()).with(2);
    let stderr = told(&["--bind", "0.0.0.0", "--peers", "node1:31011,node2:31011"]);
    let expected = "--bind: cluster.bind is 0.0.0.0, which is every address";
    assert!(
        stderr.contains(expected) && stderr.contains("--advertised-host"),
        "{stderr}"
    );
    let stderr = told(&["--zookeeper", "zk1:2181", "--register"]);
    let expected = "cluster.bind is 127.0.0.1, which no other machine reaches";
    assert!(
        stderr.contains(expected) && stderr.contains("--bind"),
        "{stderr}"
    );
}

#[test]
fn a_node_is_known_by_the_host_that_it_advertises() {
    let ports = free_ports(2);
    let peers = format!("127.0.0.1:{},localhost:{}", ports[0], ports[1]);
    let start = |index: usize, more: &[&str]| {
        let port = ports[index].to_string();
        serve(&[&["--control-port", &port, "--peers", &peers], more].concat())
    };
    let one = start(0, &[]);
    let bind = ["--bind", "0.0.0.0", "--insecure-no-auth"];
    let other = start(
        1,
        &[&bind[..], &["--advertised-host", "localhost"]].concat(),
    );
    let address = &other.address.replace("0.0.0.0", "127.0.0.1");
    let sees = |connect: &str, port: u16| {
        one.wait_for("both are up", || {
            let status = run(&["status", "--json", "--connect", connect]).stdout;
            let status: Value = serde_json::from_str(&status).unwrap();
            let up = (of_port(&status, port)["health"] == "up")
                && status["nodes"].as_array().unwrap().len() == 2;
            up.then_some(status)
        })
    };
    sees(&one.address, ports[1]);
    let status = sees(address, ports[0]);
    assert_eq!(status["nodes"][0]["address"], "localhost", "{status}");
    other.end("TERM").well();
    one.end("TERM").well();
}

#[test]
fn peers_that_are_none_are_refused_by_name() {
    let stderr = run(&["serve", "--user-port", "0", "--peers", "node1"]).with(2);
    assert!(stderr.contains("HOST:CONTROL_PORT"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("drillbit.toml");
    std::fs::write(&file, "[cluster]\npeers = [\"node1:31011\"]\n").unwrap();
    let stderr = run(&["config", "check", "--config", file.to_str().unwrap()]).with(1);
    assert!(
        stderr.contains("cluster.peers is set, but cluster.enabled is not"),
        "{stderr}"
    );
}
