//! See `tests/support/images.rs`.
#![no_main]

#[path = "../../tests/support/images.rs"]
mod images;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| images::files(bytes));
