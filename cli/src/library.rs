//! Finds the library to preload. Knows nothing of the program that it is for.
//!
//! ```text
//!   --library PATH, else SLABSIDE_LIBRARY   this one or none
//!   DIR/slabside                            else beside the executable, then
//!   DIR/../lib  ../lib/slabside  ../lib64  ../lib/MACHINE-linux-gnu   where an installation puts it
//!   else the one that the command carries   see `embedded`
//! ```

use crate::{embedded, program};
use anyhow::{bail, Context, Result};
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{absolute, Path, PathBuf};

/// File names of the library: as it is built, and as it is installed.
const NAMES: [&str; 2] = ["libslabside_preload.so", "libslabside.so.0"];
/// The environment variable that names the library.
const VARIABLE: &str = "SLABSIDE_LIBRARY";
/// What `ld.so` takes for an end of the path or for a token to be replaced, in `LD_PRELOAD` (ld.so(8)).
const SPECIAL: &[u8] = b": $";

/// The absolute path of the library: the one `given`, or one found.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let path = match (given, &named) {
        (Some(path), _) => shared(path).context("--library")?,
        (None, Some(path)) => shared(Path::new(path)).context(VARIABLE)?,
        (None, None) => match search(&own_dir()?) {
            Ok(path) => path,
            Err(error) => embedded::library().unwrap_or(Err(error))?,
        },
    };
    preloadable(path)
}

fn own_dir() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where the slabside command lies")?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// `path` made absolute, if it is a file that can be read.
fn readable(path: &Path) -> Result<PathBuf> {
    let file = File::open(path).and_then(|file| file.metadata());
    let meta = file.with_context(|| format!("cannot open '{}'", path.display()))?;
    if !meta.is_file() {
        bail!("'{}' is not a file", path.display());
    }
    absolute(path).with_context(|| format!("cannot make '{}' absolute", path.display()))
}

/// The same, if it is a shared object: the dynamic linker would only complain, and the program run without it.
fn shared(path: &Path) -> Result<PathBuf> {
    let absolute = readable(path)?;
    if !program::is_library(&absolute) {
        bail!(
            "'{}' is no library for this kind of machine",
            path.display()
        );
    }
    Ok(absolute)
}

/// The library beside the executable in `dir`, or in the places of an installation around it.
fn search(dir: &Path) -> Result<PathBuf> {
    let places = places(dir);
    match places.iter().find(|place| place.is_file()) {
        Some(place) => readable(place),
        None => bail!(not_found(&places)),
    }
}

fn places(dir: &Path) -> Vec<PathBuf> {
    let above = dir.parent().unwrap_or(dir);
    let dirs = [
        dir.to_path_buf(),
        above.join("lib"),
        above.join("lib/slabside"),
        above.join("lib64"),
        above.join(format!("lib/{}-linux-gnu", env::consts::ARCH)),
    ];
    let named = |dir: &PathBuf| NAMES.map(|name| dir.join(name));
    dirs.iter().flat_map(named).collect()
}

fn not_found(places: &[PathBuf]) -> String {
    let looked: String = places
        .iter()
        .map(|place| format!("\n  {}", place.display()))
        .collect();
    let name = NAMES[0];
    format!("cannot find {name}; looked for{looked}\nname it by --library PATH or {VARIABLE}")
}

/// `path`, if `ld.so` reads it in `LD_PRELOAD` as one path and as it stands.
fn preloadable(path: PathBuf) -> Result<PathBuf> {
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| SPECIAL.contains(byte))
    {
        bail!(
            "the dynamic linker cannot preload '{}': no colon, space or dollar may stand in the path",
            path.display()
        );
    }
    Ok(path)
}

/// The value of `LD_PRELOAD` with `library` before what is there.
pub fn prepended(library: &Path, present: Option<&OsStr>) -> std::ffi::OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(rest) = present.filter(|rest| !rest.is_empty()) {
        value.push(":");
        value.push(rest);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn install(root: &Path, dir: &str, name: &str) -> PathBuf {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
        dir.join(name)
    }

    #[test]
    fn the_library_nearest_to_the_executable_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
        for dir in [&multiarch, "lib64", "lib/slabside", "lib", "bin"] {
            for name in NAMES.iter().rev() {
                let installed = install(root.path(), dir, name);
                assert_eq!(search(&bin).unwrap(), installed);
            }
        }
    }

    #[test]
    fn a_failed_search_says_where_it_looked_and_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let told = search(&root.path().join("bin")).unwrap_err().to_string();
        for place in ["bin", "lib", "lib/slabside", "lib64"] {
            for name in NAMES {
                let place = root.path().join(place).join(name);
                assert!(
                    told.contains(&format!("\n  {}\n", place.display())),
                    "{told}"
                );
            }
        }
        assert!(told.ends_with("name it by --library PATH or SLABSIDE_LIBRARY"));
    }

    #[test]
    fn a_directory_is_no_library() {
        let root = tempfile::tempdir().unwrap();
        assert!(readable(root.path())
            .unwrap_err()
            .to_string()
            .ends_with("is not a file"));
        assert!(readable(&root.path().join("none")).is_err());
    }

    #[test]
    fn what_was_named_must_be_a_library() {
        let told = find(Some(Path::new("/etc/passwd"))).unwrap_err();
        let told = format!("{told:#}");
        let wanted = "--library: '/etc/passwd' is no library for this kind of machine";
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        assert_eq!(
            readable(Path::new("Cargo.toml")).unwrap(),
            env::current_dir().unwrap().join("Cargo.toml")
        );
    }

    #[test]
    fn paths_that_the_linker_would_split_or_expand_are_refused() {
        for path in ["/a b/l.so", "/a:b/l.so", "/$LIB/l.so"] {
            assert!(preloadable(path.into()).is_err(), "{path}");
        }
        assert!(preloadable("/usr/lib/l.so".into()).is_ok());
    }

    #[test]
    fn what_was_preloaded_stays_behind_the_library() {
        let library = Path::new("/l.so");
        assert_eq!(prepended(library, None), "/l.so");
        assert_eq!(prepended(library, Some(OsStr::new(""))), "/l.so");
        assert_eq!(
            prepended(library, Some(OsStr::new("/a.so /b.so"))),
            "/l.so:/a.so /b.so"
        );
    }
}
