//! `serve`: ready line, clients, signals, ports in use.

use std::net::TcpListener;

use crate::program::{Served, run};

#[test]
fn a_served_node_answers_and_ends_well_by_sigterm_and_ctrl_c() {
    for signal in ["TERM", "INT"] {
        let node = Served::start();
        let rows = node
            .sql(&["-c", "select 1 as one from (values(1))", "--format", "csv"])
            .well();
        assert_eq!(rows, "one\n1\n");
        assert_eq!(
            node.end(signal).well(),
            "",
            "the ready line is the only one"
        );
    }
}

#[test]
fn a_port_in_use_is_told_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let stderr = run(&["serve", "--user-port", &port.to_string()]).with(3);
    assert!(
        stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{stderr}"
    );
    assert!(stderr.contains("--user-port 0"), "{stderr}");
}

#[test]
fn a_client_goes_on_to_the_next_node_that_it_is_told() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let node = Served::start();
    let nodes = format!("127.0.0.1:{port},{}", node.address);
    let query = ["-c", "select 1 as one", "--format", "csv"];
    let rows = run(&[&["sql", "--connect", &nodes], &query[..]].concat());
    assert_eq!(rows.well(), "one\n1\n");
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // TEST-NET-1: belongs to nobody.
    let arguments = [
        "serve",
        "--bind",
        "192.0.2.1",
        "--user-port",
        "0",
        "--insecure-no-auth",
    ];
    let stderr = run(&arguments).with(3);
    assert!(stderr.contains("cannot listen on 192.0.2.1:0"), "{stderr}");
}

#[test]
fn a_node_that_others_can_reach_wants_users_or_to_be_told_that_it_needs_none() {
    let stderr = run(&["serve", "--bind", "0.0.0.0", "--user-port", "0"]).with(2);
    for expected in [
        "--bind: node.bind is 0.0.0.0",
        "--users",
        "--insecure-no-auth",
    ] {
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
}
