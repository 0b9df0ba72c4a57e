//! `drillbit drain` and SIGTERM: what runs goes on, what is new goes elsewhere.

use crate::{
    api::{ENDLESS, begin},
    http::{ask, get},
    program::{Served, finish, run, signal},
};

#[test]
fn a_node_without_work_leaves_at_once() {
    let node = Served::start();
    let stderr = run(&["drain", "--connect", &node.address]);
    assert!(stderr.stderr.contains("has left"), "{stderr:?}");
    assert_eq!(stderr.code, Some(0));
    node.ended().well();
    let gone = run(&["status", "--connect", "127.0.0.1:9"]).with(3);
    assert!(gone.contains("127.0.0.1:9"), "{gone}");
}

#[test]
fn a_draining_node_ends_what_runs_and_refuses_what_is_new() {
    let node = Served::start_with(&["--http-port", "0", "--grace", "60"]);
    let (client, id) = begin(&node, ENDLESS);
    let drained = run(&["drain", "--no-wait", "--connect", &node.address]);
    assert!(drained.stderr.contains("is draining"), "{drained:?}");
    node.wait_for_status("it says so", |status| {
        status["nodes"][0]["state"] == "QUIESCENT"
    });
    let ready = get(&node, "/readyz", "");
    assert_eq!((ready.status, ready.body.trim_end()), (503, "draining"));
    assert_eq!(get(&node, "/healthz", "").status, 200);
    let refused = node.sql(&["-c", "select 1"]).with(1);
    assert!(refused.contains("shutting down"), "{refused}");
    assert_eq!(node.status()["queries"][0]["state"], "RUNNING");
    assert_eq!(
        ask(&node, "DELETE", &format!("/api/v1/queries/{id}"), "").status,
        202
    );
    finish(client).with(1);
    node.ended().well();
}

#[test]
fn a_second_signal_does_not_wait() {
    let node = Served::start_with(&["--grace", "3600"]);
    let (client, _) = begin(&node, ENDLESS);
    signal(node.pid(), "TERM");
    node.wait_for_log(&["draining"]);
    assert_eq!(node.end("TERM").code, Some(143));
    finish(client).with(3);
}

#[test]
fn only_nodes_of_ours_can_be_asked() {
    let stderr = run(&["status", "--connect", "127.0.0.1:1"]).with(3);
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
    let stderr = run(&["top"]).with(2);
    assert!(stderr.contains("needs a terminal"), "{stderr}");
}
