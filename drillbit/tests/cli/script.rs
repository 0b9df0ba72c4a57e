//! Statements from arguments, files and standard input; formats and output files; dead peers.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::TcpListener,
    process::{Child, Stdio},
};

use arrow::ipc::reader::StreamReader;

use crate::program::{Served, drillbit, finish, run, run_with, say, signal};

#[test]
fn statements_from_stdin_run_on_an_embedded_node() {
    let finished = run_with(
        &["--format", "csv"],
        "select 1 as a; -- two\nselect 'x;y' as b\n",
    );
    assert!(finished.stderr.contains("1 row in "), "{}", finished.stderr);
    assert_eq!(finished.well(), "a\n1\n\nb\nx;y\n");
}

#[test]
fn the_sample_data_is_there() {
    let sql = "select count(*) as n from cp.`employee.json`";
    assert_eq!(
        run(&["-q", "-c", sql, "--format", "ndjson"]).well(),
        "{\"n\":1155}\n"
    );
}

#[test]
fn a_failed_statement_ends_the_script_and_is_named() {
    let script = "select 1 as a;\n\nselect * from nowhere;\nselect 2 as b;\n";
    let finished = run_with(&["--format", "csv"], script);
    assert_eq!(finished.stdout, "a\n1\n");
    let stderr = finished.with(1);
    assert!(stderr.contains("error: statement 2 (line 3): "), "{stderr}");
}

#[test]
fn keep_going_goes_on_and_still_fails() {
    let script = "select * from nowhere; select 2 as b;";
    let finished = run_with(&["--format", "ndjson", "--keep-going"], script);
    assert_eq!(finished.stdout, "{\"b\":2}\n");
    finished.with(1);
}

#[test]
fn an_open_quote_is_told_before_the_server_sees_it() {
    let stderr = run_with(&[], "select 1;\nselect 'x;\n").with(1);
    assert!(
        stderr.contains("line 2: this quote ' is never closed"),
        "{stderr}"
    );
}

#[test]
fn scripts_come_from_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("a.sql");
    fs::write(&script, "select 7 as a").unwrap();
    let script = script.to_str().unwrap();
    assert_eq!(run(&["-f", script, "--format", "csv"]).well(), "a\n7\n");
    let stderr = run(&["-f", "/nowhere/a.sql"]).with(1);
    assert!(stderr.contains("cannot read /nowhere/a.sql"), "{stderr}");
}

#[test]
fn every_format_is_what_its_name_says() {
    let node = Served::start();
    let show = |format| {
        node.sql(&[
            "-c",
            "select 1 as a, cast(null as varchar) as b",
            "--format",
            format,
        ])
        .well()
    };
    assert_eq!(show("csv"), "a,b\n1,\n");
    assert_eq!(show("json"), "[\n{\"a\":1,\"b\":null}\n]\n");
    assert_eq!(show("ndjson"), "{\"a\":1,\"b\":null}\n");
    assert!(show("table").contains("| 1 | null |"));
}

#[test]
fn an_output_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.arrows");
    let out = path.to_str().unwrap();
    let failing = "select 1 as a; select * from nowhere";
    run(&["-c", failing, "--format", "arrow", "-o", out]).with(1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(
        run(&["-c", "select 1 as a", "--format", "arrow", "-o", out]).well(),
        ""
    );
    let bytes = fs::read(&path).unwrap();
    let rows: usize = StreamReader::try_new(&bytes[..], None)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 1);
}

#[test]
fn an_output_that_cannot_be_written_is_told() {
    let stderr = run(&["-c", "select 1", "-o", "/nowhere/out.csv"]).with(1);
    assert!(stderr.contains("cannot write /nowhere/out.csv"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sql = "select a.employee_id from cp.`employee.json` a, cp.`employee.json` b";
    let mut child = drillbit(&["-c", sql, "--format", "csv"]).spawn().unwrap();
    drop(child.stdout.take());
    let finished = finish(child);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
}

#[test]
fn nobody_there_is_told_with_the_address() {
    // Bound, so that nobody else takes it, then free again.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let stderr = run(&["sql", "--connect", &address, "-c", "select 1"]).with(3);
    assert!(stderr.contains(&address), "{stderr}");
    let stderr = run(&["sql", "--connect", "no such host:1", "-c", "select 1"]).with(3);
    assert!(stderr.contains("no such host"), "{stderr}");
}

#[test]
fn a_server_that_dies_between_two_statements_is_told() {
    let node = Served::start();
    let arguments = ["sql", "--connect", &node.address, "--format", "csv"];
    let mut child = drillbit(&arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    say(&mut stdin, "select 1 as a;");
    say(&mut stdin, "select 2 as b;");
    read_lines(&mut child, 4);
    // The second one has its row, but perhaps not its end: the program may read no third one.
    node.end("KILL");
    if let Err(error) = writeln!(stdin, "select 3 as c;") {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
    drop(stdin);
    let stderr = finish(child).with(3);
    let told = ["statement 2 (line 2): ", "statement 3 (line 3): "];
    assert!(told.iter().any(|&it| stderr.contains(it)), "{stderr}");
}

#[test]
fn signals_end_a_script_that_waits_for_input() {
    let node = Served::start();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let arguments = ["sql", "--connect", &node.address, "--format", "csv"];
        let mut child = drillbit(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        say(&mut stdin, "select 1 as a;");
        read_lines(&mut child, 2);
        signal(child.id(), name);
        let stderr = finish(child).with(code);
        assert!(!stderr.contains("error"), "{stderr}");
    }
}

/// Waits until so many lines of standard output are there.
fn read_lines(child: &mut Child, lines: usize) {
    let stdout = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    assert_eq!(stdout.lines().take(lines).count(), lines);
}

#[test]
fn the_password_is_read_from_a_file() {
    let stderr = run(&["sql", "--password-file", "/nowhere", "-c", "select 1"]).with(1);
    assert!(
        stderr.contains("cannot read the password file /nowhere"),
        "{stderr}"
    );
}
