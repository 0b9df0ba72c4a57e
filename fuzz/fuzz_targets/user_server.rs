//! A user server whose client sends anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_sessions::user_server(bytes);
});
