//! `/api/v1` and `/readyz`: the node as JSON, and what changes it.

use std::process::Child;

use serde_json::Value;

use crate::{
    http::{ask, get},
    program::{ALL_PORTS, Served, drillbit, finish},
};

/// Takes longer than any test: 10^18 rows, one at a time.
pub(crate) const ENDLESS: &str = "select count(*) from (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) a(x), \
    (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) b(x), (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) c(x), \
    (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) d(x), (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) e(x), \
    (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) f(x), (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) g(x), \
    (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) h(x), (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) i(x), \
    (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) j(x), (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(0)) k(x) \
    where a.x + b.x + c.x + d.x + e.x + f.x + g.x + h.x + i.x + j.x + k.x > 98";

/// Runs a statement in the background, until the node lists it.
pub(crate) fn begin(node: &Served, sql: &str) -> (Child, String) {
    let child = drillbit(&["sql", "--connect", &node.address, "-u", "ann", "-c", sql]);
    let child = { child }.spawn().unwrap();
    let status = node.wait_for_status("the query runs", |status| {
        status["queries"][0]["state"] == "RUNNING"
    });
    let id = status["queries"][0]["id"].as_str().unwrap().to_owned();
    (child, id)
}

fn json(node: &Served, path: &str) -> Value {
    let answer = get(node, path, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: application/json"));
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_node_tells_of_itself_as_json() {
    let node = Served::start_with(&ALL_PORTS);
    assert_eq!(get(&node, "/readyz", "").status, 200);
    let nodes = json(&node, "/api/v1/nodes");
    let this = &nodes[0];
    let port = |address: &Option<String>| {
        let address = address.as_deref().unwrap();
        address.rsplit_once(':').unwrap().1.parse::<u16>().unwrap()
    };
    assert_eq!(this["control_port"], port(&node.control));
    assert_eq!(this["data_port"], port(&node.data));
    assert_eq!(this["http_port"], port(&node.http));
    assert_eq!(this["user_port"], port(&Some(node.address.clone())));
    assert_eq!(
        (&this["state"], &this["health"]),
        (&"ONLINE".into(), &"up".into())
    );
    assert_eq!(this["local"], true);
    for path in [
        "/api/v1/heartbeats",
        "/api/v1/tunnels",
        "/api/v1/streams",
        "/api/v1/queries",
    ] {
        assert_eq!(json(&node, path), Value::Array(Vec::new()), "{path}");
    }
    assert_eq!(nodes, node.status()["nodes"]);
    node.end("TERM").well();
}

#[test]
fn a_query_is_listed_and_cancelled_over_http() {
    let node = Served::start_with(&["--http-port", "0"]);
    let (client, id) = begin(&node, ENDLESS);
    let queries = json(&node, "/api/v1/queries");
    assert_eq!(
        (&queries[0]["user"], &queries[0]["id"]),
        (&"ann".into(), &id.as_str().into())
    );
    assert!(
        queries[0]["statement"]
            .as_str()
            .unwrap()
            .starts_with("select count(*)")
    );
    let path = format!("/api/v1/queries/{id}");
    assert_eq!(ask(&node, "DELETE", &path, "").status, 202);
    let stderr = finish(client).with(1);
    assert!(stderr.contains("cancel"), "{stderr}");
    assert_eq!(ask(&node, "DELETE", &path, "").status, 404);
    assert_eq!(ask(&node, "DELETE", "/api/v1/queries/7", "").status, 400);
    assert_eq!(ask(&node, "POST", &path, "").status, 405);
    node.end("TERM").well();
}

#[test]
fn web_pages_of_others_change_nothing() {
    let node = Served::start_with(&["--http-port", "0"]);
    let refused = ask(
        &node,
        "POST",
        "/api/v1/drain",
        "Origin: http://evil.example\r\n",
    );
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(get(&node, "/readyz", "").status, 200);
    assert_eq!(ask(&node, "POST", "/api/v1/drain", "").status, 202);
    node.ended().well();
}
