//! A whole segment, as anybody finds it in the object store.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::segment(data));
