//! Writes the corpus of the targets `user_server` and `client`: `cargo run -p fuzz-sessions --example session_corpus -- fuzz/corpus`.

use std::{env, error::Error, fs, path::Path};

use fuzz_sessions::seeds;

/// Modes that the scripts are played in, in turn: with a good handshake all of them.
const SERVER_MODES: [u8; 3] = [3, 1, 7];
const CLIENT_MODES: [u8; 6] = [1, 3, 5, 9, 17, 33];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args()
        .nth(1)
        .ok_or("expected the folder of the corpus")?;
    let (folder, streams) = (Path::new(&folder), Path::new(&folder).join("stream"));
    let mut of_clients = seeds::of_clients();
    of_clients.extend(seeds::recorded(&streams, ".Client")?);
    write(&folder.join("user_server"), &of_clients, &SERVER_MODES)?;
    let mut of_servers = seeds::of_servers();
    of_servers.extend(seeds::recorded(&streams, ".Server")?);
    write(&folder.join("client"), &of_servers, &CLIENT_MODES)
}

fn write(folder: &Path, scripts: &[Vec<u8>], modes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for (number, (script, &mode)) in scripts.iter().zip(modes.iter().cycle()).enumerate() {
        fs::write(
            folder.join(format!("{number:03}")),
            [&[mode], &script[..]].concat(),
        )?;
    }
    Ok(())
}
