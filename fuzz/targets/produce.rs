//! A produce request, as it comes out of the network.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::produce(data));
