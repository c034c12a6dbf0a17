//! See `strake_fuzz::mount`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strake_fuzz::mount::check(data));
