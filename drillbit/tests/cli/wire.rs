//! `wire decode` on files and standard input.

use std::fs;

use crate::program::run;

// PING and PONG: golden/user/idle.
const FRAMES: [u8; 26] = [
    0x0c, 0x0a, 6, 8, 3, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1, //
    0x0c, 0x0a, 6, 8, 4, 0x10, 0, 0x18, 0, 0x12, 2, 8, 1,
];

#[test]
fn frames_of_a_file_are_shown_a_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire.bin");
    fs::write(&path, FRAMES).unwrap();
    let finished = run(&["wire", "decode", "--plane", "user", path.to_str().unwrap()]);
    assert_eq!(finished.stderr, "2 frames, 26 bytes\n");
    let line = |offset, mode| {
        format!(
            "{{\"offset\":{offset},\"length\":13,\"mode\":\"{mode}\",\"coordination_id\":0,\"rpc_type\":0,\
             \"rpc_name\":null,\"pbody\":{{\"ok\":true}},\"raw_len\":0}}\n"
        )
    };
    assert_eq!(finished.well(), line(0, "PING") + &line(13, "PONG"));
}

#[test]
fn damage_ends_with_1_after_what_was_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire.bin");
    fs::write(&path, &FRAMES[..20]).unwrap();
    let finished = run(&["wire", "decode", "--plane", "data", path.to_str().unwrap()]);
    assert_eq!(finished.stdout.lines().count(), 1);
    let stderr = finished.with(1);
    assert!(
        stderr.contains("byte 20: expected 6 more bytes, found the end"),
        "{stderr}"
    );
}

#[test]
fn standard_input_and_missing_files_work_as_expected() {
    assert_eq!(run(&["wire", "decode", "--plane", "user", "-"]).well(), "");
    let stderr = run(&["wire", "decode", "--plane", "user", "/nowhere"]).with(1);
    assert!(stderr.contains("cannot read /nowhere"), "{stderr}");
}
