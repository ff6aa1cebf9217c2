//! The configuration of who may scrape, as somebody mistypes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::web_config(data));
