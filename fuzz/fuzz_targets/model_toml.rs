#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::attack("model_toml", bytes));
