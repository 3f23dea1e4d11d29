//! Builds the preload library that the command carries, so that what `cargo install` makes runs programs at once.
//!
//! ```text
//!   the allocator's source (DEP_SLABSIDE_*) --.
//!   preload/*, all of that crate --------------+--> OUT_DIR/library --> src/embedded.rs
//!   Cargo.toml, written here -----------------'
//! ```
//!
//! A debug build in the source tree is for work on the command: it carries an empty file, and takes the library that
//! lies beside it.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=preload");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let library = match wanted()? {
        true => build(&out)?,
        false => Vec::new(),
    };
    let mut hasher = DefaultHasher::new();
    library.hash(&mut hasher);
    println!(
        "cargo:rustc-env=SLABSIDE_LIBRARY_HASH={:016x}",
        hasher.finish()
    );
    fs::write(out.join("library"), library)?;
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// Whether the command is to carry the library.
fn wanted() -> Result<bool> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let in_source_tree = here.join("../preload/Cargo.toml").is_file();
    let release = variable("PROFILE")? == "release";
    Ok((release || !in_source_tree) && env::var_os("DOCS_RS").is_none())
}

/// The library, built by a cargo of its own below `out`: offline, since what it needs was fetched for this build.
fn build(out: &Path) -> Result<Vec<u8>> {
    let core = variable("DEP_SLABSIDE_SOURCE")?;
    let base = variable("DEP_SLABSIDE_BASE_SOURCE")?;
    println!("cargo:rerun-if-changed={core}/src");
    println!("cargo:rerun-if-changed={base}/src");
    let package = out.join("preload");
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("Cargo.toml"), manifest(&core, &base))?;
    for (from, to) in [
        ("lib.rs", "src/lib.rs"),
        ("open.rs", "src/open.rs"),
        ("system.rs", "src/system.rs"),
        ("basic.list", "basic.list"),
        ("build.rs", "build.rs"),
        ("order.ld", "order.ld"),
    ] {
        fs::copy(Path::new("preload").join(from), package.join(to))?;
    }
    let target = variable("TARGET")?;
    let built = out.join("target");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args([
            "rustc",
            "--release",
            "--lib",
            "--crate-type=cdylib",
            "--offline",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(&built)
        .current_dir(&package);
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the preload library cannot be built: {status}").into());
    }
    Ok(fs::read(
        built.join(target).join("release/libslabside_preload.so"),
    )?)
}

/// The preload crate's manifest, and the release profile of slabside's workspace.
fn manifest(core: &str, base: &str) -> String {
    format!(
        r#"[package]
name = "slabside-preload"
version = "{version}"
edition = "2021"
publish = false

[lib]
name = "slabside_preload"
crate-type = ["cdylib"]
test = false
doctest = false

[dependencies]
slabside-base = {{ path = {base:?} }}
slabside-core = {{ path = {core:?} }}
libc = {{ version = "0.2", default-features = false }}

# The core of a registry asks the registry for the base: it is the same one.
[patch.crates-io]
slabside-base = {{ path = {base:?} }}

[profile.release]
panic = "abort"
lto = "fat"
codegen-units = 1
strip = "debuginfo"

[workspace]
"#,
        version = env!("CARGO_PKG_VERSION"),
    )
}
