//! See `strake_fuzz::documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::documents::check(data));
