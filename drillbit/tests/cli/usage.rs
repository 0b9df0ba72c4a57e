//! Wrong usage ends with 2 and says what would be right; help and version end with 0.

use crate::program::run;

#[test]
fn wrong_usage_is_exit_code_2_and_says_why() {
    let cases: [(&[&str], &str); 7] = [
        (&["srve"], "serve"),
        (&["serve", "--user-port", "70000"], "70000"),
        (
            &["serve", "--bind", "nowhere.example"],
            "invalid IP address",
        ),
        (&["sql", "--format", "xml"], "ndjson"),
        (
            &["sql", "-c", "select 1", "-f", "x.sql"],
            "cannot be used with",
        ),
        (&["wire", "decode", "x"], "--plane"),
        (&["--log", "a=b=c", "-c", "select 1"], "--log a=b=c"),
    ];
    for (arguments, expected) in cases {
        let stderr = run(arguments).with(2);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_names_the_commands_and_the_exit_codes() {
    let help = run(&["--help"]).well();
    for expected in [
        "serve",
        "sql",
        "config",
        "password",
        "wire",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.contains(expected), "{expected}: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(
        run(&["--version"]).well(),
        format!("drillbit {}\n", env!("CARGO_PKG_VERSION"))
    );
}
