//! See `strake_fuzz::ignore`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::ignore::check(data));
