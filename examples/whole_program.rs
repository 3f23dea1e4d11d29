//! slabside for a whole Rust program, the C libraries that it uses among it, with options of its own:
//! `cargo run --release --example whole_program --features override`.

use slabside::{set_option, stats, trim, OptionError, Slabside};
use std::ffi::{CStr, CString};

slabside::options!("limit-hard:64MB,decay:1s");

#[global_allocator]
static ALLOCATOR: Slabside = Slabside;

fn main() {
    let text = CString::new(vec![b'x'; 3 << 20]).expect("no zero in it");
    let before = stats();
    // SAFETY: a string; the copy comes from the C library's malloc and goes by its free.
    let copied = unsafe {
        let copy = libc::strdup(text.as_ptr());
        assert_eq!(CStr::from_ptr(copy), text.as_c_str());
        let after = stats();
        libc::free(copy.cast());
        after.live - before.live
    };
    assert!(copied >= 3 << 20, "{copied} bytes");
    println!("the C library copied {} MiB in this heap", copied >> 20);

    assert!(Vec::<u8>::new().try_reserve(100 << 20).is_err());
    assert_eq!(set_option("decay", "5s"), Err(OptionError::TooLate));
    assert_eq!(set_option("guard-sample", "5000"), Ok(()));
    println!("no more than 64 MB can be had");

    drop(vec![1u8; 200_000]);
    println!("memory went back: {}", trim());
}
