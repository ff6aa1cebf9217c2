//! A message of the metadata service, as it comes out of the network.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamhouse_fuzz::metadata(data));
