//! Frames out of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpc_bus::fuzzing::codec(bytes);
});
