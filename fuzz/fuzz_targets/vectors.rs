//! A descriptor and a body of Drill's vectors, of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    record_batch::fuzzing::vectors(bytes);
});
