//! The library that this command carries, and the private place from where it is preloaded.
//!
//! ```text
//!   $XDG_CACHE_HOME/slabside, else $HOME/.cache/slabside, else /tmp/slabside-UID     ours, mode 0700
//!       libslabside-VERSION-HASH.so                     compared byte by byte before each use
//! ```
//!
//! A debug build in the source tree carries nothing (build.rs).

use anyhow::{bail, Context, Result};
use rustix::fs::{statvfs, StatVfsMountFlags};
use rustix::process::geteuid;
use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The library. Empty if none is carried.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/library"));
/// Name of its file.
const NAME: &str = concat!(
    "libslabside-",
    env!("CARGO_PKG_VERSION"),
    "-",
    env!("SLABSIDE_LIBRARY_HASH"),
    ".so"
);

/// Puts the library into a file that only this user can write to, and returns its path. `None` if the command carries
/// none.
pub fn library() -> Option<Result<PathBuf>> {
    (!LIBRARY.is_empty()).then(|| {
        let directories = directories(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"), user());
        unpacked(&directories, LIBRARY)
    })
}

fn user() -> u32 {
    geteuid().as_raw()
}

/// Where the library may go, best place first.
fn directories(cache: Option<OsString>, home: Option<OsString>, user: u32) -> Vec<PathBuf> {
    let absolute =
        |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute(cache).or_else(|| Some(absolute(home)?.join(".cache")));
    let temporary = PathBuf::from(format!("/tmp/slabside-{user}"));
    cache
        .map(|cache| cache.join("slabside"))
        .into_iter()
        .chain([temporary])
        .collect()
}

/// `contents` in a file of the first of `directories` that is, or can be made, private.
fn unpacked(directories: &[PathBuf], contents: &[u8]) -> Result<PathBuf> {
    let mut why = String::from("there is no place for the library that this command carries");
    for directory in directories {
        match unpacked_in(directory, contents) {
            Ok(path) => return Ok(path),
            Err(error) => why += &format!("\n  {}: {error:#}", directory.display()),
        }
    }
    bail!("{why}\nname an installed one by --library PATH or SLABSIDE_LIBRARY")
}

fn unpacked_in(directory: &Path, contents: &[u8]) -> Result<PathBuf> {
    make_private(directory)?;
    let path = directory.join(NAME);
    if !holds(&path, contents) {
        write(directory, &path, contents)?;
    }
    Ok(path)
}

/// Makes `directory` unless it is there. It must be this user's and closed to all others.
fn make_private(directory: &Path) -> Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    // That it is there already is seen below. Whose it is as well.
    let _ = DirBuilder::new().mode(0o700).create(directory);
    let found = fs::symlink_metadata(directory).context("cannot be made")?;
    if !found.is_dir() {
        bail!("is not a directory");
    }
    if found.uid() != user() || found.mode() & 0o077 != 0 {
        bail!(
            "is not private (its owner must be user {}, its mode 0700)",
            user()
        );
    }
    if statvfs(directory)?
        .f_flag
        .contains(StatVfsMountFlags::NOEXEC)
    {
        bail!("lies on a file system without programs (noexec)");
    }
    Ok(())
}

/// Whether `path` is a file with exactly `contents`.
fn holds(path: &Path, contents: &[u8]) -> bool {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let Ok(mut file) = file else { return false };
    let regular = file
        .metadata()
        .is_ok_and(|found| found.is_file() && found.len() == contents.len() as u64);
    let mut there = Vec::with_capacity(contents.len());
    regular && file.read_to_end(&mut there).is_ok() && there == contents
}

/// Writes a new file and moves it to `path`, so that nobody ever sees or maps half of it.
fn write(directory: &Path, path: &Path, contents: &[u8]) -> Result<()> {
    let mut file = NamedTempFile::new_in(directory).context("cannot be written to")?;
    file.write_all(contents)
        .context("cannot hold the library")?;
    file.persist(path).context("cannot hold the library")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};
    use std::slice::from_ref;
    use std::thread;

    const CONTENTS: &[u8] = b"the library";

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_users_cache_comes_first_and_relative_paths_are_ignored() {
        let places = |cache: &str, home: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| OsString::from(text));
            directories(given(cache), given(home), 7)
        };
        let temporary = PathBuf::from("/tmp/slabside-7");
        assert_eq!(
            places("/c", "/h"),
            [PathBuf::from("/c/slabside"), temporary.clone()]
        );
        assert_eq!(
            places("", "/h"),
            [PathBuf::from("/h/.cache/slabside"), temporary.clone()]
        );
        assert_eq!(places("c", "h"), [temporary]);
    }

    #[test]
    fn the_library_is_unpacked_once_into_a_directory_of_ones_own() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("made/slabside");
        let path = unpacked(from_ref(&directory), CONTENTS).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENTS);
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let first = fs::metadata(&path).unwrap().ino();
        assert_eq!(unpacked(from_ref(&directory), CONTENTS).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_was_changed_or_replaced_by_a_link_is_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("slabside");
        let path = unpacked(from_ref(&directory), CONTENTS).unwrap();
        fs::write(&path, "the lierary").unwrap();
        unpacked(from_ref(&directory), CONTENTS).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENTS);
        let elsewhere = root.path().join("elsewhere");
        fs::write(&elsewhere, CONTENTS).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        unpacked(&[directory], CONTENTS).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_directory_that_others_can_enter_or_that_is_a_link_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let (open, link, own) = (
            root.path().join("open"),
            root.path().join("link"),
            root.path().join("own"),
        );
        fs::create_dir(&open).unwrap();
        set_mode(&open, 0o755);
        fs::create_dir(root.path().join("target")).unwrap();
        set_mode(&root.path().join("target"), 0o700);
        symlink(root.path().join("target"), &link).unwrap();
        let all = [open.clone(), link.clone(), own.clone()];
        assert_eq!(unpacked(&all, CONTENTS).unwrap(), own.join(NAME));
        let why = unpacked(&[open, link], CONTENTS).unwrap_err().to_string();
        assert!(
            why.contains("is not private") && why.contains("is not a directory"),
            "{why}"
        );
        assert!(why.contains("--library"), "{why}");
    }

    #[test]
    fn many_commands_at_once_all_find_a_whole_library() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("slabside");
        let contents: Vec<u8> = (0..1 << 20)
            .map(|byte: u32| byte.to_le_bytes()[0])
            .collect();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let path = unpacked(from_ref(&directory), &contents).unwrap();
                        assert!(holds(&path, &contents));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
