//! A connection, its peer, its callers and its handler, doing anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpc_bus::fuzzing::session(bytes);
});
