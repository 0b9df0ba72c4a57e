//! What this software is, as peers and watchers are told.

use rpc_bus::Capabilities;

use crate::engine;

/// Version of the program.
pub(crate) const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// What our side offers in handshakes.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities {
        engine_version: engine::version(),
        ..Capabilities::of_software(SOFTWARE)
    }
}
