#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::usage_file(data));
