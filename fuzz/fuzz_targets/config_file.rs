#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sim::config_file(data));
