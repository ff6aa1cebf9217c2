//! A record batch, as a producer sends it or a reader finds it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::batch(data));
