//! Link options of the preload library. It stays loaded for good, and binds its own names at once. It costs each
//! program that starts as little as possible. (To that end its few variables outside the allocator's own lie in .data:
//! a .bss would have the loader clear, and the kernel copy, one page more.)

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the linker of this build may know or not.
const WISHES: [&[&str]; 3] = [
    // Headers, constants and code are one mapping, each of which costs every start 1 %: an lld of its own accord
    // makes two.
    &["-Wl,--no-rosegment"],
    // The compiler's start files register what the library has not, and ask the loader for four names.
    &["-nostartfiles"],
    // Code that an ordinary process never runs lies together: a small process has 6 % less resident.
    &[
        "-Xlinker",
        "-T",
        "-Xlinker",
        concat!(env!("CARGO_MANIFEST_DIR"), "/order.ld"),
    ],
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=order.ld");
    println!("cargo:rerun-if-changed=basic.list");
    println!("cargo:rustc-cdylib-link-arg=-lc");
    for option in [
        "-z,nodelete",
        "-z,now",
        "-z,relro",
        "-z,noseparate-code",
        // What an installation calls it. The number changes when a program linked with an older one could not run with
        // this one.
        "-soname,libslabside.so.0",
        // Its own names are its own, but for those of which a program may have the first say: what it has in the
        // place of a basic function, the forms that end in it go to (`slabside_core::api::forms`). Of the variable
        // `slabside_region` a program that is linked with the library has the only copy that it sees.
        concat!("--dynamic-list=", env!("CARGO_MANIFEST_DIR"), "/basic.list"),
    ] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{option}");
    }
    for wish in WISHES.into_iter().filter(|wish| links_with(wish)) {
        for option in wish {
            println!("cargo:rustc-cdylib-link-arg={option}");
        }
    }
}

/// Whether a library can be linked with `options`: by the compiler and the linker that make this one.
fn links_with(options: &[&str]) -> bool {
    let variable = |name| env::var(name).unwrap_or_default();
    let out = variable("OUT_DIR");
    let source = Path::new(&out).join("probe.rs");
    let text =
        "#![no_std]\n#[panic_handler] fn panic(_: &core::panic::PanicInfo) -> ! { loop {} }\n";
    if fs::write(&source, text).is_err() {
        return false;
    }
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let linker = variable("RUSTC_LINKER");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler
        .args(["--crate-type=cdylib", "-Cpanic=abort", "--target"])
        .arg(variable("TARGET"))
        .args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if !linker.is_empty() {
        compiler.arg(format!("-Clinker={linker}"));
    }
    compiler
        .args(options.iter().map(|option| format!("-Clink-arg={option}")))
        .arg("-o")
        .arg(Path::new(&out).join("probe.so"))
        .arg(&source);
    compiler
        .output()
        .is_ok_and(|output| output.status.success())
}
