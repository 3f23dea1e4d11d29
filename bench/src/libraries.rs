//! The allocators as shared libraries: which ones there are, and where.
//!
//! `peers.sh` puts those that it builds into the folder `peers` beside the programs. Debian's lie in the system's
//! folders.

use std::path::{Path, PathBuf};

/// An allocator, and the library that brings it. The system's malloc has none.
#[derive(Clone, Debug)]
pub struct Library {
    /// Its name in tables.
    pub name: String,
    /// What `LD_PRELOAD` is set to.
    pub path: Option<PathBuf>,
    /// Its version, as far as it is known.
    pub version: String,
    /// What `SLABSIDE_OPTIONS` is set to.
    pub options: &'static str,
}

impl Library {
    /// The same with a thread of its own that gives back memory.
    pub fn with_background(&self) -> Library {
        Library {
            options: "background:on",
            ..self.clone()
        }
    }
}

/// Names in the order of the tables, and what their libraries are called.
const KNOWN: [(&str, &str); 8] = [
    ("slabside", "libslabside_preload.so"),
    ("glibc", ""),
    ("mimalloc2", "libmimalloc2.so"),
    ("mimalloc3", "libmimalloc3.so"),
    ("jemalloc", "libjemalloc.so.2"),
    ("tcmalloc", "libtcmalloc_minimal.so.4"),
    ("snmalloc", "libsnmalloc.so"),
    ("rpmalloc", "librpmalloc.so"),
];

const SYSTEM: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];

/// The folder that `peers.sh` filled: `peers` in a folder above this program.
fn built() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program
        .ancestors()
        .map(|folder| folder.join("peers"))
        .find(|folder| folder.is_dir());
    found.unwrap_or_default()
}

fn locate(file: &str) -> Option<PathBuf> {
    let folders = std::iter::once(built()).chain(SYSTEM.iter().map(PathBuf::from));
    folders
        .map(|folder| folder.join(file))
        .find(|path| path.is_file())
}

/// The version that `peers.sh` noted.
fn version(name: &str) -> String {
    let notes = std::fs::read_to_string(built().join("versions")).unwrap_or_default();
    let line = notes
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or("unknown").to_owned()
}

/// Every allocator that is there, in the order of the tables.
pub fn all() -> Vec<Library> {
    let known = KNOWN.iter().map(|&(name, file)| {
        (
            name,
            if file.is_empty() {
                None
            } else {
                Some(locate(file))
            },
        )
    });
    let present = known.filter(|(_, path)| !matches!(path, Some(None)));
    present
        .map(|(name, path)| Library {
            name: name.to_owned(),
            path: path.flatten(),
            version: version(name),
            options: "",
        })
        .collect()
}

/// One more allocator, given as `name=path`.
pub fn given(argument: &str) -> Option<Library> {
    let (name, path) = argument.split_once('=')?;
    let path = Path::new(path).canonicalize().ok()?;
    Some(Library {
        name: name.to_owned(),
        version: path.display().to_string(),
        path: Some(path),
        options: "",
    })
}
