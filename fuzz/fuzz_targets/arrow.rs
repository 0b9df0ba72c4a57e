//! The bodies of a stream in Arrow's format, of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    record_batch::fuzzing::arrow(bytes);
});
