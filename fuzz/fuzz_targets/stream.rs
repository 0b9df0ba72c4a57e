//! A connection whose peer sends any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rpc_bus::fuzzing::stream(bytes);
});
