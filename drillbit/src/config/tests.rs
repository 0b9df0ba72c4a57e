//! Layers, origins, texts, contradictions; and that what is shown can be read again.

use std::{path::Path, time::Duration};

use bit_control::ControlOptions;
use rpc_bus::ConnectionOptions;

use super::{Config, Flags, KeyName, Origin, Problems, Settings, keys::SECTIONS, layer::Layer};

const FILE: &str = "conf/node.toml";

fn load(text: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Settings, Problems> {
    let variables = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings::of_layers(vec![
        Layer::text(Path::new(FILE), text)?,
        Layer::environment(variables)?,
        flags.into_layer(),
    ])?;
    match super::check::check(&settings) {
        problems if problems.is_empty() => Ok(settings),
        problems => Err(Problems(problems)),
    }
}

fn file(text: &str) -> Result<Settings, Problems> {
    load(text, &[], Flags::default())
}

fn refused(text: &str) -> String {
    file(text).expect_err("a problem").to_string()
}

const PORT: KeyName = KeyName {
    section: "node",
    key: "user_port",
};

#[test]
fn nothing_said_is_all_defaults_and_they_contradict_nothing() {
    let settings = file("").unwrap();
    assert_eq!(settings.config, Config::default());
    assert_eq!(settings.origin(PORT), None);
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let text = "[node]\nbind = \"::1\"\nuser_port = 1\n";
    let variable = ("DRILLBIT_NODE_USER_PORT", "2");
    let flags = || Flags::default().with("--user-port", ("node", "user_port"), Some(3));

    let from_file = file(text).unwrap();
    assert_eq!(from_file.config.node.user_port, 1);
    let line = Origin::File {
        path: FILE.into(),
        line: 3,
    };
    assert_eq!(from_file.origin(PORT), Some(&line));

    let from_variable = load(text, &[variable], Flags::default()).unwrap();
    assert_eq!(from_variable.config.node.user_port, 2);
    let variable_name = Origin::Variable(variable.0.to_owned());
    assert_eq!(from_variable.origin(PORT), Some(&variable_name));

    let from_flag = load(text, &[variable], flags()).unwrap();
    assert_eq!(from_flag.config.node.user_port, 3);
    assert_eq!(from_flag.origin(PORT), Some(&Origin::Flag("--user-port")));
    assert_eq!(
        from_flag.config.node.bind.to_string(),
        "::1",
        "still the file's"
    );
}

#[test]
fn a_flag_that_is_not_given_says_nothing() {
    let flags = Flags::default().with("--user-port", ("node", "user_port"), None::<i64>);
    let settings = load("[node]\nuser_port = 1\n", &[], flags).unwrap();
    assert_eq!(settings.config.node.user_port, 1);
}

#[test]
fn an_unknown_key_is_told_with_its_line_and_the_nearest_one() {
    assert_eq!(
        refused("[node]\nuser_port = 1\nmemroy_mib = 64\n"),
        "conf/node.toml:3: unknown key node.memroy_mib; did you mean memory_mib?"
    );
    assert_eq!(
        refused("[http]\nmemory_mib = 64\n"),
        "conf/node.toml:2: unknown key http.memory_mib; there is one in [node]"
    );
    assert!(refused("[node]\nmemory = 64\n").ends_with("did you mean memory_mib?"));
    assert!(refused("[http]\nqqq = 1").ends_with(
        "unknown key http.qqq; there are enabled, bind, insecure_plain, port, connections_max, \
         header_timeout_ms, write_timeout_ms, body_kib_max"
    ));
}

#[test]
fn an_unknown_section_is_told_and_so_is_a_key_outside_of_any() {
    assert_eq!(
        refused("[nodes]\n"),
        "conf/node.toml:1: unknown section [nodes]; did you mean [node]?"
    );
    assert_eq!(
        refused("user_port = 1\n"),
        "conf/node.toml:1: the key user_port belongs into the section [node]"
    );
}

#[test]
fn all_unknown_keys_are_told_at_once() {
    let told = refused("[node]\na_b = 1\n[http]\nx_y = 2\n");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn a_wrong_value_is_told_with_its_line() {
    for (text, expected) in [
        (
            "[node]\n\nuser_port = 70000\n",
            ":3: invalid value: integer `70000`, expected u16: user_port = 70000",
        ),
        ("[node]\nbind = \"here\"\n", ":2: "),
        (
            "[node]\nuser_port = \"1\"\n",
            ":2: invalid type: string \"1\", expected u16",
        ),
        (
            "[user]\nframe_mib_max = 0\n",
            ":2: invalid value: integer `0`, expected a nonzero usize",
        ),
        ("node = 1\n", ":1: "),
        ("[node]\nuser_port =\n", ":2: "),
        (
            "[node]\nuser_port = 1\nuser_port = 2\n",
            ":3: duplicate key",
        ),
    ] {
        let told = refused(text);
        assert!(
            told.starts_with(FILE) && told.contains(expected),
            "{text:?}: {told}"
        );
    }
}

#[test]
fn variables_are_values_without_quotes_or_toml() {
    let environment = [
        ("DRILLBIT_NODE_BIND", "127.0.0.2"),
        ("DRILLBIT_NODE_ADVERTISED_HOST", "42"),
        ("DRILLBIT_HTTP_ENABLED", "true"),
        ("DRILLBIT_ENGINE_WORKSPACES", "{ data = \"/srv\" }"),
        ("DRILLBIT_PASSWORD", "not a key"),
        ("DRILLBIT_CONFIG", "not a key"),
        ("PATH", "/bin"),
    ];
    let config = load("", &environment, Flags::default()).unwrap().config;
    assert_eq!(config.node.bind.to_string(), "127.0.0.2");
    assert_eq!(config.node.advertised_host.as_deref(), Some("42"));
    assert!(config.http.enabled);
    assert_eq!(config.engine.workspaces["data"], Path::new("/srv"));
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let refused = |name, value| {
        let settings = load("", &[(name, value)], Flags::default());
        settings.expect_err("a problem").to_string()
    };
    assert_eq!(
        refused("DRILLBIT_NODE_USER_PORT", "x"),
        "DRILLBIT_NODE_USER_PORT: invalid type: string \"x\", expected u16"
    );
    assert_eq!(
        refused("DRILLBIT_NODE_USR_PORT", "1"),
        "DRILLBIT_NODE_USR_PORT: unknown key node.usr_port; did you mean user_port?"
    );
}

/// What is told of each text holds what is expected.
fn check_told(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let told = refused(text);
        assert!(told.contains(expected), "{text:?}: {told}");
    }
}

#[test]
fn contradictions_are_told_with_the_place_of_the_value() {
    check_told(&[
        (
            "[node]\nmemory_mib = 63\n",
            ":2: node.memory_mib is 63, at least 64 are needed",
        ),
        (
            "[user]\nheartbeat_interval_ms = 1000\nheartbeat_timeout_ms = 2999\n",
            ":3: user.heartbeat_timeout_ms is 2999, below 3 beats of 1000 ms, that is 3000",
        ),
        (
            "[user]\nheartbeat_timeout_ms = 2999\n",
            ":2: user.heartbeat_timeout_ms is set, but no user.heartbeat_interval_ms",
        ),
        (
            "[user]\nbeat_interval_ms = 9\n",
            ":2: user.beat_interval_ms is 9, at least 10 are needed",
        ),
        (
            "[client]\nbeat_interval_ms = 1\n",
            ":2: client.beat_interval_ms is 1, at least 10 are needed",
        ),
        (
            "[user]\nbatch_rows_max = 65537\n",
            ":2: user.batch_rows_max is 65537",
        ),
        (
            "[user]\nstatement_kib_max = 16385\n",
            ":2: user.statement_kib_max is 16385",
        ),
        (
            "[user]\nbatch_kib_target = 16385\n",
            ":2: user.batch_kib_target is 16385",
        ),
        (
            "[user]\nconnections_per_peer_max = 10001\n",
            ":2: user.connections_per_peer_max",
        ),
        (
            "[user]\nframe_mib_max = 4096\n",
            ":2: user.frame_mib_max is 4096, expected at most 2047",
        ),
        (
            "[data]\nbacklog = 7\nhandshake_frame_kib_max = 262145\n",
            ":3: data.handshake_frame_kib_max is 262145, expected at most data.frame_mib_max, 256 MiB",
        ),
        (
            "[cluster]\nconnections_max = 5\nconnections_per_peer_max = 6\n",
            ":3: cluster.connections_per_peer_max is above cluster.connections_max",
        ),
        (
            "[node]\nmemory_mib = 512\n[user]\nmemory_mib_max = 257\n",
            ":4: user.memory_mib_max is 257: beside data with 0 MiB and cluster with 0, that is more than there is \
             of 256 MiB for all connections, half of node.memory_mib",
        ),
    ]);
}

#[test]
fn contradictions_between_planes_are_told_with_the_place_of_the_value() {
    check_told(&[
        (
            "[cluster]\nenabled = true\n[data]\nenabled = true\nmemory_mib_max = 2000\n",
            ":5: data.memory_mib_max is too much: data has 2000 MiB and cluster 256, which leaves user nothing",
        ),
        (
            "[tls]\ncertificates = \"c\"\nkey = \"k\"\n[cluster]\nenabled = true\nzookeeper = \"zk:2181\"\n",
            "cluster.tls_ca is not set: with tls.certificates",
        ),
        (
            "[cluster]\nenabled = true\nmemory_mib_max = 2048\n",
            ":3: cluster.memory_mib_max is too much",
        ),
        (
            "[http]\nenabled = true\nport = 31010\n",
            ":3: http.port is 31010",
        ),
        (
            "[data]\nenabled = true\nport = 31010\n",
            ":3: data.port is 31010, which is node.user_port already",
        ),
        (
            "[http]\nenabled = true\n[data]\nenabled = true\nport = 8047\n",
            ":5: data.port is 8047, which is http.port already",
        ),
        (
            "[data]\nenabled = true\nbind = \"0.0.0.0\"\n",
            ":3: data.bind is 0.0.0.0",
        ),
        ("[node]\nbind = \"0.0.0.0\"\n", ":2: node.bind is 0.0.0.0"),
        (
            "[http]\nenabled = true\nbind = \"::\"\n",
            ":3: http.bind is ::",
        ),
        (
            "[auth]\nusers = \"users\"\n[http]\nenabled = true\nbind = \"::\"\n",
            ":5: http.bind is ::, which other machines reach, and there is no TLS",
        ),
    ]);
}

/// A node with others; `bind` is that of its control server.
fn clustered(bind: &str, others: &str, node: &str) -> Result<Settings, Problems> {
    let text = format!(
        "[cluster]\nenabled = true\nbind = \"{bind}\"\n{others}\n[node]\n{node}\n[auth]\ninsecure_no_auth = true\n"
    );
    file(&text)
}

const PEERS_HERE: &str = "peers = [\"127.0.0.1:31011\", \"localhost:32011\", \"[::1]:33011\"]";
const PEERS: &str = "peers = [\"node1:31011\", \"node2:31011\"]";
const ZOOKEEPER_HERE: &str = "zookeeper = \"localhost:2181\"";
const ZOOKEEPER: &str = "zookeeper = \"127.0.0.1:2181,zk2:2181\"";

#[test]
fn a_node_of_a_cluster_has_a_host_that_is_no_other_ones() {
    for others in [PEERS_HERE, PEERS, ZOOKEEPER_HERE, ZOOKEEPER] {
        for bind in ["0.0.0.0", "::"] {
            let told = clustered(bind, others, "").unwrap_err().to_string();
            let expected = format!(
                "{FILE}:3: cluster.bind is {bind}, which is every address of this machine: name the host"
            );
            assert!(
                told.contains(&expected) && told.contains("--advertised-host"),
                "{told}"
            );
            clustered(bind, others, "advertised_host = \"node1\"").unwrap();
        }
        clustered("10.0.0.5", others, "").unwrap();
    }
    clustered("0.0.0.0", "", "").expect("nobody to be known by");
}

#[test]
fn others_reach_a_node_on_the_loopback_interface_only_from_the_same_machine() {
    for others in [PEERS_HERE, ZOOKEEPER_HERE] {
        clustered("127.0.0.1", others, "").unwrap();
        clustered("::1", others, "").unwrap();
    }
    for others in [PEERS, ZOOKEEPER] {
        let told = clustered("127.0.0.1", others, "").unwrap_err().to_string();
        let expected =
            ":3: cluster.bind is 127.0.0.1, which no other machine reaches: listen where";
        assert!(told.contains(expected), "{told}");
        clustered("127.0.0.1", others, "advertised_host = \"10.0.0.5\"").unwrap();
    }
}

#[test]
fn a_host_that_is_told_to_others_is_that_of_one_node() {
    for host in ["", "0.0.0.0", "::"] {
        let told = refused(&format!("[node]\nadvertised_host = \"{host}\"\n"));
        let expected = format!(":2: node.advertised_host is \"{host}\", expected the host");
        assert!(told.contains(&expected), "{told}");
    }
}

#[test]
fn no_time_between_beats_is_no_beats() {
    let config = file("[user]\nbeat_interval_ms = 0\n[client]\nbeat_interval_ms = 0\n");
    let config = config.unwrap().config;
    assert_eq!(config.node_options().user_server.beats, None);
    assert_eq!(config.client.beat_interval(), None);
}

#[test]
fn every_plane_has_limits_of_its_own_for_both_of_its_sides() {
    let text = "\
[user]
frame_mib_max = 3
[data]
enabled = true
frame_mib_max = 5
idle_timeout_s = 60
connections_per_peer_max = 2
memory_mib_max = 9
[cluster]
enabled = true
write_queue_kib_max = 7
handshake_timeout_ms = 1500
";
    let options = file(text).unwrap().config.node_options();
    let user = &options.user_server.connections;
    assert_eq!(user.connection.frame_bytes_max, 3 << 20);
    let data = options.data.as_ref().unwrap();
    let (accepted, made) = (&data.server.connections.connection, &data.connection);
    let minute = Duration::from_mins(1);
    for side in [accepted, made] {
        assert_eq!(side.frame_bytes_max, 5 << 20);
        assert_eq!(side.idle_timeout, Some(minute));
    }
    assert_eq!(
        (accepted.ping_interval, made.ping_interval),
        (None, Some(minute / 2))
    );
    assert!(made.beats.is_some(), "as before");
    assert_eq!(data.server.connections.connections_per_peer_max, Some(2));
    assert_eq!(options.plane_bytes().data, 9 << 20);
    let cluster = options.cluster.as_ref().unwrap();
    for side in [&cluster.server.connection, &cluster.connection] {
        assert_eq!(side.write_queue_bytes_max, 7 << 10);
        assert_eq!(side.handshake_timeout, Duration::from_millis(1500));
    }
}

#[test]
fn the_defaults_are_those_of_the_planes() {
    let text = "[data]\nenabled = true\n[cluster]\nenabled = true\n";
    let options = file(text).unwrap().config.node_options();
    let same = |ours: &ConnectionOptions, planes: ConnectionOptions| {
        let planes = ConnectionOptions {
            capabilities: ours.capabilities.clone(),
            ..planes
        };
        assert_eq!(ours, &planes);
    };
    let user = &options.user_server.connections;
    same(&user.connection, ConnectionOptions::user_server());
    let (data, plain) = (options.data.unwrap(), bit_data::NodeOptions::default());
    same(
        &data.server.connections.connection,
        plain.server.connections.connection,
    );
    let made = ConnectionOptions {
        requests_in_flight_max: data.connection.requests_in_flight_max,
        ..plain.connection
    };
    same(&data.connection, made);
    let (cluster, plain) = (options.cluster.unwrap(), ControlOptions::default());
    same(&cluster.server.connection, plain.server.connection);
    same(&cluster.connection, plain.connection);
}

#[test]
fn three_beats_are_enough() {
    let text = "[user]\nheartbeat_interval_ms = 1000\nheartbeat_timeout_ms = 3000\n";
    let beats = file(text).unwrap().config.user_connections();
    let beats = beats.connection.beats.unwrap();
    assert_eq!((beats.interval.as_millis(), beats.missed_max), (1000, 3));
}

#[test]
fn other_machines_may_come_in_when_that_is_asked_for_by_name() {
    let text = "[node]\nbind = \"0.0.0.0\"\n[auth]\ninsecure_no_auth = true\n";
    assert!(file(text).is_ok());
    let text = "\
[auth]
users = \"users\"
[http]
enabled = true
bind = \"::\"
insecure_plain = true
";
    assert!(file(text).is_ok());
    assert!(
        file("[http]\nbind = \"::\"\n").is_ok(),
        "there is no HTTP server"
    );
}

#[test]
fn every_key_has_a_text_of_its_own() {
    let keys = SECTIONS.iter().flat_map(|section| section.keys);
    for key in keys {
        let text = key.text.concat();
        assert!(
            text.len() > 15 && text.ends_with('.'),
            "{}: {text}",
            key.name
        );
    }
}

#[test]
fn names_end_in_the_unit_that_their_text_speaks_of() {
    for key in SECTIONS.iter().flat_map(|section| section.keys) {
        let text = key.text.concat();
        for (words, named) in [
            ("in MiB", key.name.contains("_mib")),
            ("in KiB", key.name.contains("_kib")),
            ("in milliseconds", key.name.ends_with("_ms")),
            ("in seconds", key.name.ends_with("_s")),
        ] {
            assert_eq!(text.contains(words), named, "{}: {text}", key.name);
        }
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let text = "\
[node]
bind = \"127.0.0.3\"
advertised_host = \"a \\\"host\\\"\"
[user]
connections_per_peer_max = 7
[engine]
workspaces = { \"a b\" = \"/x\", tmp = \"/tmp\" }
";
    for settings in [file("").unwrap(), file(text).unwrap()] {
        let shown = settings.show();
        let again = file(&shown).unwrap_or_else(|problems| panic!("{problems}\n{shown}"));
        assert_eq!(again.config, settings.config, "{shown}");
    }
}

#[test]
fn what_is_shown_names_every_key_with_default_and_origin() {
    let shown = file("[node]\nuser_port = 1\n").unwrap().show();
    for section in SECTIONS {
        assert!(shown.contains(&format!("\n[{}]\n", section.name)));
        for key in section.keys {
            let (set, unset) = (
                format!("\n{} = ", key.name),
                format!("\n# {} =\n", key.name),
            );
            assert!(
                shown.contains(&set) || shown.contains(&unset),
                "{}",
                key.name
            );
        }
    }
    assert!(
        shown.contains("# Default: 31010. Set by conf/node.toml:2.\nuser_port = 1\n"),
        "{shown}"
    );
    assert!(
        shown.contains("# Default: 4096.\nmemory_mib = 4096\n"),
        "{shown}"
    );
    assert!(
        shown.contains("# Default: unset.\n# advertised_host =\n"),
        "{shown}"
    );
}

#[test]
fn a_missing_file_is_told_by_its_name() {
    let missing = Path::new("/nowhere/node.toml");
    let problems = Settings::load(Some(missing), [], Flags::default()).unwrap_err();
    let told = problems.to_string();
    assert!(
        told.starts_with("/nowhere/node.toml: cannot read the configuration: "),
        "{told}"
    );
}
