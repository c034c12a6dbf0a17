//! See `strake_fuzz::parse`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::parse::check(data));
