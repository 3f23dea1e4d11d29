//! Tells the crates that depend on this one where its source lies: the command's build script compiles the
//! preload library from it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:source={}", env!("CARGO_MANIFEST_DIR"));
}
