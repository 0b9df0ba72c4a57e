//! `config check` and `config show`; where the configuration comes from.

use std::fs;

use tempfile::TempDir;

use crate::program::{Finished, drillbit, finish, run};

fn folder_with(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drillbit.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = drillbit(arguments);
    finish(command.envs(environment.iter().copied()).spawn().unwrap())
}

#[test]
fn a_valid_configuration_is_said_to_be_so() {
    let (_folder, file) = folder_with("[node]\nuser_port = 0\n");
    let told = run(&["config", "check", "--config", &file]).well();
    assert_eq!(told, "the configuration is valid\n");
    run(&["config", "check"]).well();
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let (_folder, file) = folder_with("[node]\nuser_prot = 0\nmemory = 1\n");
    let stderr = run(&["config", "check", "--config", &file]).with(1);
    let expected = [
        format!("{file}:2: unknown key node.user_prot; did you mean user_port?"),
        format!("{file}:3: unknown key node.memory"),
    ];
    for expected in expected {
        assert!(stderr.contains(&expected), "{stderr}");
    }
    let stderr = run(&["config", "check", "--config", "/nowhere/x.toml"]).with(1);
    assert!(stderr.contains("/nowhere/x.toml: cannot read"), "{stderr}");
}

#[test]
fn what_is_shown_is_a_configuration_itself() {
    let (_folder, file) = folder_with("[user]\nconnections_max = 7\n");
    let shown = run(&["config", "show", "--config", &file]).well();
    assert!(shown.contains(&format!("Set by {file}:2.\nconnections_max = 7\n")));
    let (_again, copy) = folder_with(&shown);
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let shown_again = run(&["config", "show", "--config", &copy]).well();
    assert_eq!(values(&shown_again), values(&shown));
}

#[test]
fn the_environment_names_the_file_and_beats_it() {
    let (_folder, file) = folder_with("[node]\nuser_port = 1\ngrace_s = 2\n");
    let environment = [
        ("DRILLBIT_CONFIG", file.as_str()),
        ("DRILLBIT_NODE_USER_PORT", "3"),
    ];
    let shown = run_in(&environment, &["config", "show"]).well();
    assert!(shown.contains("Set by DRILLBIT_NODE_USER_PORT.\nuser_port = 3\n"));
    assert!(shown.contains(&format!("Set by {file}:3.\ngrace_s = 2\n")));
    let stderr = run_in(&[("DRILLBIT_NODE_USER_PROT", "3")], &["config", "check"]).with(1);
    assert!(stderr.contains("did you mean user_port?"), "{stderr}");
}

#[test]
fn a_node_does_not_start_with_a_wrong_configuration() {
    let (_folder, file) =
        folder_with("[user]\nheartbeat_interval_ms = 10\nheartbeat_timeout_ms = 20\n");
    let stderr = run(&["serve", "--user-port", "0", "--config", &file]).with(2);
    assert!(
        stderr.contains(&format!("{file}:3: user.heartbeat_timeout_ms is 20")),
        "{stderr}"
    );
}

#[test]
fn a_client_finds_its_server_in_the_configuration() {
    let (_folder, file) = folder_with("[client]\nconnect = \"nowhere.invalid:7\"\n");
    let stderr = run(&["sql", "--config", &file, "-c", "select 1"]).with(3);
    assert!(stderr.contains("nowhere.invalid:7"), "{stderr}");
}
