//! See `strake_fuzz::expand`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::expand::check(data));
