//! TLS, users and passwords, as server and client of the program have them.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bit_control::{ControlNode, ControlOptions, Services};
use bit_data::{DataTarget, NoStreams};
use protos::{coord::DrillbitEndpoint, error::ErrorType, id::QueryId};
use rpc_bus::{
    BusRuntime, CallError, ConnectError, Ledger,
    auth::{Credentials, Login, LoginError, Mechanism},
    ledger::Limits,
};
use serde_json::Value;

use crate::{
    certificates::Authority,
    cluster::{free_ports, of_port},
    http::{ask, get},
    program::{ALL_PORTS, Served, run, run_with, signal},
};

const PASSWORD: &str = "open sesame";
const QUERY: [&str; 4] = ["-c", "select 1 as one", "--format", "csv"];

/// The line of a user.
fn user(name: &str, password: &str, scheme: &str) -> String {
    run_with(
        &["password", name, "--scheme", scheme],
        &format!("{password}\n"),
    )
    .well()
}

/// A folder with `users` and a file `password`.
struct Users {
    folder: tempfile::TempDir,
}

impl Users {
    fn new(lines: &str) -> Self {
        let users = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        users.write("users", lines);
        users.write("password", PASSWORD);
        users
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn a_line_of_each_scheme_lets_its_user_in() {
    for scheme in ["bcrypt", "argon2", "scram-sha-256"] {
        let line = user("ann", PASSWORD, scheme);
        assert!(
            line.starts_with("ann:") && !line.contains(PASSWORD),
            "{line}"
        );
        let users = Users::new(&line);
        let node = Served::start_with(&["--users", &users.file("users")]);
        let password = users.file("password");
        let login = ["-u", "ann", "--password-file", password.as_str()];
        assert_eq!(node.sql(&[&login[..], &QUERY].concat()).well(), "one\n1\n");
    }
}

#[test]
fn a_password_is_read_from_one_line_and_must_be_one() {
    run_with(&["password", "ann"], "\n").with(1);
    run_with(&["password", "a:b"], "x\n").with(2);
    run_with(&["password", "ann", "--scheme", "md5"], "x\n").with(2);
}

#[test]
fn nobody_else_comes_in_and_is_told_what_is_missing() {
    let users = Users::new(&user("ann", PASSWORD, "scram-sha-256"));
    users.write("wrong", "open barley");
    let node = Served::start_with(&["--users", &users.file("users")]);
    let stderr = node.sql(&QUERY).with(3);
    for way in ["-u NAME", "--password-file", "DRILLBIT_PASSWORD"] {
        assert!(stderr.contains(way), "{stderr}");
    }
    let wrong = users.file("wrong");
    let login = ["-u", "ann", "--password-file", wrong.as_str()];
    let stderr = node.sql(&[&login[..], &QUERY].concat()).with(3);
    assert!(
        stderr.contains("did not accept user and password"),
        "{stderr}"
    );
    assert!(!stderr.contains("barley"), "{stderr}");
}

#[test]
fn users_are_read_again_by_sighup_and_bad_ones_keep_the_old() {
    let users = Users::new(&user("ann", PASSWORD, "scram-sha-256"));
    let node = Served::start_with(&["--users", &users.file("users")]);
    let password = users.file("password");
    let login = |name| ["-u", name, "--password-file", password.as_str()];
    let query = |name| node.sql(&[&login(name)[..], &QUERY].concat());
    query("bob").with(3);

    users.write("users", &user("bob", PASSWORD, "scram-sha-256"));
    signal(node.pid(), "HUP");
    node.wait_for_log(&["users", "read again"]);
    query("bob").well();
    query("ann").with(3);

    users.write("users", "no hash");
    signal(node.pid(), "HUP");
    node.wait_for_log(&["users", "cannot be read again", "line 1"]);
    query("bob").well();
}

#[test]
fn a_changed_file_of_users_is_noticed() {
    let users = Users::new(&user("ann", PASSWORD, "scram-sha-256"));
    users.write("drillbit.toml", "[node]\nreload_interval_s = 1\n");
    let (file, config) = (users.file("users"), users.file("drillbit.toml"));
    let node = Served::start_with(&["--users", &file, "--config", &config]);
    users.write(
        "users",
        &(user("ann", PASSWORD, "bcrypt") + &user("bob", PASSWORD, "bcrypt")),
    );
    node.wait_for_log(&["users", "read again"]);
    let password = users.file("password");
    let login = ["-u", "bob", "--password-file", password.as_str()];
    node.sql(&[&login[..], &QUERY].concat()).well();
}

#[test]
fn metrics_want_a_user_and_health_does_not() {
    let users = Users::new(&user("ann", PASSWORD, "bcrypt"));
    let node = Served::start_with(&["--users", &users.file("users"), "--http-port", "0"]);
    assert_eq!(get(&node, "/healthz", "").status, 200);
    let refused = get(&node, "/metrics", "");
    assert_eq!(refused.status, 401);
    assert!(
        refused.head.contains("www-authenticate: basic"),
        "{refused:?}"
    );
    // ann:open sesame, ann:open barley
    let right = "Authorization: Basic YW5uOm9wZW4gc2VzYW1l\r\n";
    let wrong = "Authorization: Basic YW5uOm9wZW4gYmFybGV5\r\n";
    assert_eq!(get(&node, "/metrics", right).status, 200);
    assert_eq!(get(&node, "/metrics", wrong).status, 401);
    assert_eq!(get(&node, "/readyz", "").status, 200);
    for path in [
        "/api/v1/nodes",
        "/api/v1/heartbeats",
        "/api/v1/tunnels",
        "/api/v1/queries",
    ] {
        assert_eq!(get(&node, path, "").status, 401, "{path}");
        assert_eq!(get(&node, path, right).status, 200, "{path}");
    }
    assert_eq!(ask(&node, "POST", "/api/v1/drain", "").status, 401);
    assert_eq!(ask(&node, "POST", "/api/v1/drain", right).status, 202);
    node.ended().well();
}

#[test]
fn nodes_know_each_other_over_tls_with_a_password_and_not_without() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.issue("node", "127.0.0.1");
    let users = Users::new(&user("node", PASSWORD, "scram-sha-256"));
    users.write("wrong", "open barley");
    let [users_file, ca] = [users.file("users"), authority.file("authority.pem")];
    let start = |name: &str, port: u16, peer: u16, password: &str| {
        let text = format!(
            "[tls]\ncertificates = '{certificate}'\nkey = '{key}'\n[auth]\nusers = '{users_file}'\n\
             [cluster]\nenabled = true\nport = {port}\npeers = ['127.0.0.1:{peer}']\nbeat_interval_ms = 100\n\
             tls_ca = '{ca}'\nuser = 'node'\npassword_file = '{}'\n\
             [data]\nenabled = true\nport = 0\n\
             [client]\nuser = 'node'\ntls_ca = '{ca}'\ntls = true\npassword_file = '{}'\n",
            users.file(password),
            users.file("password"),
        );
        users.write(name, &text);
        let file = users.file(name);
        (Served::start_with(&["--config", &file]), file)
    };
    let is_measured = |other: &Value| other["data_rtt_ms"]["p50"].is_number();
    let sees = |(node, config): &(Served, String), port: u16, wanted: &str| {
        let arguments = [
            "status",
            "--json",
            "--config",
            config,
            "--connect",
            &node.address,
        ];
        node.wait_for(wanted, || {
            let finished = run(&arguments);
            let status = serde_json::from_str(&finished.stdout);
            let status: Value =
                status.unwrap_or_else(|_| panic!("{finished:?}: {:#?}", node.log_so_far()));
            let other = of_port(&status, port);
            // Data connections are made with the same certificates and password.
            let is_so = other["health"] == wanted && is_measured(other) == (wanted == "up");
            is_so.then_some(other.clone())
        })
    };
    let [left, right, stranger] = free_ports(3)[..] else {
        unreachable!()
    };
    let one = start("one", left, right, "password");
    let other = start("other", right, left, "password");
    sees(&one, right, "up");
    sees(&other, left, "up");
    let third = start("third", stranger, left, "wrong");
    let refused = sees(&third, left, "down");
    assert!(refused["beats"]["answered"] == 0, "{refused}");
}

#[test]
fn nodes_show_each_other_their_password_in_clear_only_when_that_is_asked_for() {
    // Keys for PLAIN alone.
    let users = Users::new(&user("node", PASSWORD, "bcrypt"));
    let [users_file, password] = [users.file("users"), users.file("password")];
    let [asked, watcher] = free_ports(2)[..] else {
        unreachable!()
    };
    let start = |port: u16, more: String| {
        let text = format!(
            "[auth]\nusers = '{users_file}'\n\
             [client]\nuser = 'node'\npassword_file = '{password}'\n\
             [cluster]\nenabled = true\nport = {port}\nbeat_interval_ms = 100\n{more}"
        );
        let name = port.to_string();
        users.write(&name, &text);
        let file = users.file(&name);
        (Served::start_with(&["--config", &file]), file)
    };
    let sees = |(node, config): &(Served, String), wanted: &str| {
        let connect = ["--config", config, "--connect", &node.address];
        node.wait_for(wanted, || {
            let status = run(&[&["status", "--json"], &connect[..]].concat()).stdout;
            let status: Value = serde_json::from_str(&status).unwrap();
            let other = of_port(&status, asked).clone();
            (other["health"] == wanted).then_some(other)
        })
    };
    let _asked = start(asked, "node_users = ['node']\n".to_owned());
    let login =
        format!("peers = ['127.0.0.1:{asked}']\nuser = 'node'\npassword_file = '{password}'\n");
    let careful = start(watcher, login.clone());
    let refused = sees(&careful, "down");
    assert!(refused["beats"]["answered"] == 0, "{refused}");
    drop(careful);
    let told = start(watcher, format!("{login}mechanism = 'PLAIN'\n"));
    sees(&told, "up");
}

/// Speaks to a node as a user, on the control plane and on the data plane; how that ended.
fn speak(node: &Served, name: &str, mechanism: Mechanism) -> [Result<(), ConnectError>; 2] {
    let login = Login {
        mechanism: Some(mechanism),
        ..Login::new(Credentials::new(name, PASSWORD))
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcomes = runtime.block_on(async {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let bus = BusRuntime::current(Arc::new(pool.unwrap()));
        [
            speak_control(node, &login, &bus).await,
            speak_data(node, &login, &bus).await,
        ]
    });
    runtime.shutdown_background();
    outcomes
}

async fn speak_control(node: &Served, login: &Login, bus: &BusRuntime) -> Result<(), ConnectError> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = DrillbitEndpoint {
        address: Some("127.0.0.1".to_owned()),
        ..DrillbitEndpoint::default()
    };
    let options = ControlOptions {
        login: Some(login.clone()),
        ..ControlOptions::default()
    };
    let ledger = Ledger::root("control", Limits::default());
    let control = ControlNode::bind(
        any,
        endpoint,
        bus.clone(),
        options,
        Services::default(),
        ledger,
    );
    let to = node.control.as_deref().unwrap().parse().unwrap();
    let tunnel = control.await.unwrap().tunnel(&to);
    match tunnel.cancel_query(QueryId::default()).await {
        Err(CallError::Connect(error)) => Err(error),
        // There is no such query.
        _ => Ok(()),
    }
}

async fn speak_data(node: &Served, login: &Login, bus: &BusRuntime) -> Result<(), ConnectError> {
    let address = node.data.as_deref().unwrap().parse().unwrap();
    let target = DataTarget {
        login: Some(login.clone()),
        ..DataTarget::new(address, Ledger::root("data", Limits::default()))
    };
    let connected = bit_data::connect(target, bus, Arc::new(NoStreams)).await;
    connected.map(|connection| connection.close())
}

/// What a node says to a user that is no node.
fn refusal(outcome: &Result<(), ConnectError>) -> (ErrorType, String) {
    let Err(ConnectError::Login(error)) = outcome else {
        panic!("{outcome:?}")
    };
    let LoginError::Call(CallError::Remote(failure)) = &**error else {
        panic!("{error:?}")
    };
    let error = &failure.error;
    (error.error_type(), error.message().to_owned())
}

#[test]
fn a_user_that_is_no_node_runs_queries_and_is_refused_where_nodes_speak() {
    let lines = ["ann", "drillbit"].map(|name| user(name, PASSWORD, "scram-sha-256"));
    let users = Users::new(&lines.concat());
    let file = users.file("users");
    let named = ["--users", &file, "--node-users", "other,drillbit"];
    let node = Served::start_with(&[&named[..], &ALL_PORTS].concat());
    for mechanism in [Mechanism::Plain, Mechanism::ScramSha256] {
        for outcome in speak(&node, "ann", mechanism) {
            let (kind, message) = refusal(&outcome);
            assert_eq!(kind, ErrorType::Permission, "{message}");
            let told =
                "\"ann\" may not come in here, expected a user of a node (cluster.node_users)";
            assert!(message.ends_with(told), "{message}");
        }
        for outcome in speak(&node, "drillbit", mechanism) {
            outcome.unwrap();
        }
    }
    let password = users.file("password");
    for name in ["ann", "drillbit"] {
        let login = ["-u", name, "--password-file", password.as_str()];
        node.sql(&[&login[..], &QUERY].concat()).well();
    }
    // ann:open sesame
    let authorization = "Authorization: Basic YW5uOm9wZW4gc2VzYW1l\r\n";
    for plane in ["control", "data"] {
        let counted = format!("closed_total{{plane=\"{plane}\",reason=\"not_admitted\"}} 2\n");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let metrics = get(&node, "/metrics", authorization).body;
            if metrics.contains(&counted) {
                break;
            }
            assert!(Instant::now() < deadline, "{counted}{metrics}");
        }
    }
    signal(node.pid(), "HUP");
    let said = node.log_until(&["users", "read again"]);
    let refused = said
        .iter()
        .filter(|line| line.contains("refused; not told again"));
    assert_eq!(refused.count(), 1, "{said:#?}");
}

#[test]
fn where_no_node_is_named_the_user_that_the_node_itself_is_at_others_is_one() {
    let lines = ["ann", "drillbit"].map(|name| user(name, PASSWORD, "scram-sha-256"));
    let users = Users::new(&lines.concat());
    let (file, password) = (users.file("users"), users.file("password"));
    let start = |name: &str, cluster: &str| {
        let text = format!(
            "[auth]\nusers = '{file}'\n[cluster]\nenabled = true\nport = 0\n{cluster}\
             [data]\nenabled = true\nport = 0\n"
        );
        users.write(name, &text);
        Served::start_with(&["--config", &users.file(name)])
    };
    let scram = Mechanism::ScramSha256;
    let node = start(
        "with",
        &format!("user = 'drillbit'\npassword_file = '{password}'\n"),
    );
    for outcome in speak(&node, "drillbit", scram) {
        outcome.unwrap();
    }
    for outcome in speak(&node, "ann", scram) {
        refusal(&outcome);
    }
    node.wait_for_log(&["only nodes that are the user", "--node-users"]);
    let alone = start("without", "");
    alone.wait_for_log(&["no user is a node", "--node-users"]);
    for name in ["drillbit", "ann"] {
        for outcome in speak(&alone, name, scram) {
            refusal(&outcome);
        }
    }
    for (name, told) in [
        ("with", "note: only nodes that are"),
        ("without", "note: no user is a node"),
    ] {
        let checked = run(&["config", "check", "--config", &users.file(name)]).well();
        assert!(checked.contains(told), "{checked}");
        assert!(
            checked.ends_with("the configuration is valid\n"),
            "{checked}"
        );
    }
    let login = ["-u", "ann", "--password-file", password.as_str()];
    alone.sql(&[&login[..], &QUERY].concat()).well();
}

#[test]
fn nodes_named_without_users_are_a_mistake() {
    let arguments = ["serve", "--user-port", "0", "--node-users", "drillbit"];
    let stderr = run(&arguments).with(2);
    let told = "--node-users: cluster.node_users is set, but no auth.users";
    assert!(stderr.contains(told), "{stderr}");
    let users = Users::new("");
    let file = users.file("users");
    let arguments = ["serve", "--users", &file, "--node-users", "drillbit,"];
    let stderr = run(&arguments).with(2);
    assert!(stderr.contains("node_users has an empty name"), "{stderr}");
    let text = format!(
        "[auth]\nusers = '{}'\n[cluster]\nnode_users = ['drillbit', 'other']\n",
        users.file("users")
    );
    users.write("drillbit.toml", &text);
    let file = users.file("drillbit.toml");
    let shown = run(&["config", "show", "--config", &file]).well();
    let named = "\nnode_users = [\"drillbit\", \"other\"]\n";
    assert!(shown.contains(named), "{shown}");
}

#[test]
fn only_the_mechanism_that_is_named_is_used() {
    let users = Users::new(&user("ann", PASSWORD, "bcrypt"));
    let node = Served::start_with(&["--users", &users.file("users")]);
    let password = users.file("password");
    let query = |mechanism: &str| {
        let login = ["-u", "ann", "--password-file", &password];
        node.sql(&[&login[..], &["--mechanism", mechanism], &QUERY].concat())
    };
    query("PLAIN").well();
    let stderr = query("SCRAM-SHA-256").with(3);
    assert!(stderr.contains("asks for one of [\"PLAIN\"]"), "{stderr}");
    let stderr = query("MD5").with(2);
    for told in ["'MD5' for '--mechanism", "SCRAM-SHA-256, PLAIN"] {
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[test]
fn sql_goes_over_tls_with_a_password() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.issue("node", "127.0.0.1");
    let users = Users::new(&user("ann", PASSWORD, "scram-sha-256"));
    let (ca, password) = (authority.file("authority.pem"), users.file("password"));
    let node = Served::start_with(&[
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--users",
        &users.file("users"),
    ]);
    let tls = ["--tls-ca", ca.as_str()];
    let login = ["-u", "ann", "--password-file", password.as_str()];
    let rows = node.sql(&[&tls[..], &login, &QUERY].concat()).well();
    assert_eq!(rows, "one\n1\n");
}

#[test]
fn what_is_wrong_with_tls_is_told_with_a_way_out() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let (certificate, key) = authority.issue("node", "elsewhere.example");
    let (ca, other) = (
        authority.file("authority.pem"),
        stranger.file("authority.pem"),
    );
    let node = Served::start_with(&["--tls-cert", &certificate, "--tls-key", &key]);
    let told = |flags: &[&str]| node.sql(&[flags, &QUERY].concat()).with(3);

    let stderr = told(&[]);
    assert!(stderr.contains("TLS"), "{stderr}");
    let stderr = told(&["--tls-ca", &other]);
    assert!(stderr.contains("--tls-ca FILE names"), "{stderr}");
    let stderr = told(&["--tls-ca", &ca]);
    assert!(
        stderr.contains("elsewhere.example") && stderr.contains("--tls-server-name"),
        "{stderr}"
    );
    for flags in [
        ["--tls-server-name", "elsewhere.example"].as_slice(),
        &["--tls-no-host-verification"],
    ] {
        node.sql(&[&["--tls-ca", &ca], flags, &QUERY].concat())
            .well();
    }

    let plain = Served::start();
    let stderr = plain
        .sql(&[&["--tls-ca", ca.as_str()], &QUERY[..]].concat())
        .with(3);
    assert!(stderr.contains("leave out --tls"), "{stderr}");
}

#[test]
fn a_node_may_want_certificates_of_its_clients() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.issue("node", "127.0.0.1");
    let (own, own_key) = authority.issue("client", "client.example");
    let ca = authority.file("authority.pem");
    let node = Served::start_with(&[
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
    ]);
    let stderr = node
        .sql(&[&["--tls-ca", ca.as_str()], &QUERY[..]].concat())
        .with(3);
    assert!(stderr.contains("--tls-cert FILE"), "{stderr}");
    let identity = ["--tls-ca", &ca, "--tls-cert", &own, "--tls-key", &own_key];
    node.sql(&[&identity[..], &QUERY].concat()).well();
}

#[test]
fn certificates_are_read_again_by_sighup() {
    let authority = Authority::new("authority");
    let (certificate, key) = authority.issue("node", "elsewhere.example");
    let ca = authority.file("authority.pem");
    let node = Served::start_with(&["--tls-cert", &certificate, "--tls-key", &key]);
    let arguments = [&["--tls-ca", ca.as_str()], &QUERY[..]].concat();
    node.sql(&arguments).with(3);
    authority.issue("node", "127.0.0.1");
    signal(node.pid(), "HUP");
    node.wait_for_log(&["certificates", "read again"]);
    node.sql(&arguments).well();
}

#[test]
fn nodes_meet_with_the_certificates_of_another_authority_after_they_were_read_again() {
    let authority = Authority::new("old");
    let (certificate, key) = authority.issue("node", "127.0.0.1");
    let (client, client_key) = authority.issue("client", "client.example");
    let ca = authority.file("authority.pem");
    let [port_of_one, other_port] = free_ports(2)[..] else {
        unreachable!()
    };
    // Only the first one connects: what it connects with decides.
    let start = |port: u16, peers: String| {
        let text = format!(
            "[tls]\ncertificates = '{certificate}'\nkey = '{key}'\nclient_authorities = '{ca}'\n\
             [cluster]\nenabled = true\nport = {port}\n{peers}beat_interval_ms = 100\n\
             [data]\nenabled = true\nport = 0\n\
             [client]\ntls = true\ntls_ca = '{ca}'\ntls_certificates = '{client}'\ntls_key = '{client_key}'\n",
        );
        let file = authority.folder().join(port.to_string());
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap().to_owned();
        (Served::start_with(&["--config", &file]), file)
    };
    let is_measured = |other: &Value| other["data_rtt_ms"]["p50"].is_number();
    let sees = |(node, config): &(Served, String), wanted: &str| {
        let connect = ["--config", config, "--connect", &node.address];
        node.wait_for(wanted, || {
            let status = run(&[&["status", "--json"], &connect[..]].concat()).stdout;
            let status: Value = serde_json::from_str(&status).unwrap();
            let other = of_port(&status, other_port);
            let is_so = other["health"] == wanted && is_measured(other) == (wanted == "up");
            is_so.then_some(())
        });
    };
    let one = start(port_of_one, format!("peers = ['127.0.0.1:{other_port}']\n"));
    let (other, _) = start(other_port, String::new());
    sees(&one, "up");

    let rotated = Authority::new("new");
    rotated.issue("node", "127.0.0.1");
    rotated.issue("client", "client.example");
    for name in [
        "authority.pem",
        "node.pem",
        "node-key.pem",
        "client.pem",
        "client-key.pem",
    ] {
        fs::copy(rotated.file(name), authority.file(name)).unwrap();
    }
    signal(one.0.pid(), "HUP");
    one.0
        .wait_for_log(&["certificates for other nodes", "read again"]);
    assert_eq!(other.end("KILL").code, None);
    sees(&one, "down");
    let _other = start(other_port, String::new());
    sees(&one, "up");
}

#[test]
fn files_that_cannot_be_used_are_told_before_anything_starts() {
    let authority = Authority::new("authority");
    let (certificate, _) = authority.issue("node", "127.0.0.1");
    let (_, key) = authority.issue("other", "127.0.0.1");
    let arguments = [
        "serve",
        "--user-port",
        "0",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ];
    let stderr = run(&arguments).with(2);
    assert!(stderr.contains("does not belong to"), "{stderr}");
    let stderr = run(&arguments[..5]).with(2);
    assert!(
        stderr.contains("--tls-cert: tls.certificates is set, but no tls.key"),
        "{stderr}"
    );
    let config = authority.folder().join("drillbit.toml");
    fs::write(&config, "[auth]\nusers = \"/nowhere/users\"\n").unwrap();
    let stderr = run(&["config", "check", "--config", config.to_str().unwrap()]).with(1);
    assert!(stderr.contains("/nowhere/users"), "{stderr}");
}
