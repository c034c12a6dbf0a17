//! See `strake_fuzz::layer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::layer::check(data));
