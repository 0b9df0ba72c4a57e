//! A client whose server sends anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_sessions::client(bytes);
});
