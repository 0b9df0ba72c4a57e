//! Compiles `proto/*.proto` without a system protoc, and keeps the descriptors for reflection.
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 10] = [
    "bus.proto",
    "common.proto",
    "rpc.proto",
    "coordination.proto",
    "shared.proto",
    "bit.proto",
    "control.proto",
    "data.proto",
    "status.proto",
    "user.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // Raw bodies and opaque payloads are shared, never copied.
    config.bytes(["."]);
    // Their derived Debug would print the password that a client sends in clear.
    config.skip_debug(["exec.user.Property", "exec.shared.SaslMessage"]);
    config.enable_type_names();
    config.include_file("packages.rs");
    config.compile_fds(descriptors)?;
    Ok(())
}
