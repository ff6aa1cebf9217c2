//! The notes of an executable, as anybody can write one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::notes(data));
