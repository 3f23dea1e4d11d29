//! Link options of the preload library: it stays loaded for good, and binds its own names at once.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-lc");
    for option in ["-z,nodelete", "-z,now", "-z,relro", "-Bsymbolic"] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{option}");
    }
}
