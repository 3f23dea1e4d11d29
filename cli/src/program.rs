//! Whether a program can be preloaded into at all: told before it runs, since it would run without a word otherwise.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why the dynamic linker preloads nothing into a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has no dynamic linker.
    Static,
    /// It takes on the rights of another user or group (set-user-id).
    Privileged,
    /// It is for another kind of machine, or of 32 bits.
    Foreign,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Static => "is linked statically",
            Obstacle::Privileged => "takes on the rights of another user or group",
            Obstacle::Foreign => "is for another kind of machine",
        })
    }
}

/// Bytes of an ELF header, and the most of program headers that are looked at.
const HEADER: usize = 64;
const HEADERS_MOST: usize = 64 << 10;
/// Type of the program header that names the dynamic linker.
const INTERPRETER: u32 = 3;

/// What keeps the library out of `program`, which is looked up as execvp(3) does. `None`: nothing that is known.
pub fn obstacle(program: &OsStr) -> Option<Obstacle> {
    let path = find(program)?;
    let file = File::open(&path).ok()?;
    let metadata = file.metadata().ok()?;
    let header = header(&file)?;
    // SAFETY: these ask for numbers alone.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let gains = |bit, id, own| metadata.mode() & bit != 0 && id != own;
    if gains(libc::S_ISUID, metadata.uid(), user) || gains(libc::S_ISGID, metadata.gid(), group) {
        return Some(Obstacle::Privileged);
    }
    if !is_native(&header) {
        return Some(Obstacle::Foreign);
    }
    (!has_interpreter(&file, &header)).then_some(Obstacle::Static)
}

/// Whether the file at `path` is a shared object for this kind of machine.
pub fn is_library(path: &Path) -> bool {
    let header = File::open(path).ok().and_then(|file| header(&file));
    header.is_some_and(|header| is_native(&header) && half(&header, 16) == 3)
}

/// The file that `program` names, in PATH unless it has a slash.
fn find(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() != 1 || program.as_encoded_bytes().contains(&b'/') {
        return Some(path.to_path_buf());
    }
    let dirs = env::var_os("PATH")?;
    env::split_paths(&dirs)
        .map(|dir| dir.join(path))
        .find(|path| {
            let executable = |metadata: std::fs::Metadata| metadata.mode() & 0o111 != 0;
            path.is_file() && path.metadata().is_ok_and(executable)
        })
}

/// The ELF header of `file`, if it has one.
fn header(file: &File) -> Option<[u8; HEADER]> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).ok()?;
    header.starts_with(b"\x7fELF").then_some(header)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    let half = bytes.get(at..at + 2).and_then(|half| half.try_into().ok());
    half.map_or(0, u16::from_le_bytes)
}

/// Of 64 bits, little-endian, and for the processor that this command was built for.
fn is_native(header: &[u8]) -> bool {
    let machine = match env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => return true,
    };
    header[4..6] == [2, 1] && half(header, 18) == machine
}

fn has_interpreter(file: &File, header: &[u8]) -> bool {
    let mut start = [0; 8];
    start.copy_from_slice(&header[32..40]);
    let (start, size) = (u64::from_le_bytes(start), usize::from(half(header, 54)));
    let bytes = size * usize::from(half(header, 56));
    if size < 4 || bytes > HEADERS_MOST {
        return true;
    }
    let mut headers = vec![0; bytes];
    if file.read_exact_at(&mut headers, start).is_err() {
        return true;
    }
    let kind = |one: &[u8]| u32::from_le_bytes([one[0], one[1], one[2], one[3]]);
    headers
        .chunks_exact(size)
        .any(|one| kind(one) == INTERPRETER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn compiled(flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("p.c"), dir.path().join("p"));
        fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let mut cc = Command::new("cc");
        cc.args(flags).arg("-o").arg(&program).arg(&source);
        assert!(cc.status().unwrap().success());
        (dir, program)
    }

    #[test]
    fn a_dynamic_program_has_no_obstacle_and_a_static_one_has() {
        let (_dir, program) = compiled(&[]);
        assert_eq!(obstacle(program.as_os_str()), None);
        let (_dir, program) = compiled(&["-static"]);
        assert_eq!(obstacle(program.as_os_str()), Some(Obstacle::Static));
        assert_eq!(obstacle(OsStr::new("true")), None);
        assert_eq!(obstacle(OsStr::new("no-such-program")), None);
    }

    #[test]
    fn a_program_of_another_machine_or_with_more_rights_is_told() {
        let (_dir, program) = compiled(&[]);
        let mut bytes = fs::read(&program).unwrap();
        bytes[18] ^= 1;
        fs::write(&program, &bytes).unwrap();
        assert_eq!(obstacle(program.as_os_str()), Some(Obstacle::Foreign));
        // A group that we do not have can be set by root alone; then it is told.
        let (_dir, program) = compiled(&[]);
        let owner = std::os::unix::fs::chown(&program, Some(1), Some(1));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
        let wanted = owner.is_ok().then_some(Obstacle::Privileged);
        assert_eq!(obstacle(program.as_os_str()), wanted);
    }

    #[test]
    fn a_library_is_a_shared_object() {
        let (_dir, library) = compiled(&["-shared", "-fPIC"]);
        assert!(is_library(&library));
        assert!(!is_library(Path::new("/etc/passwd")) && !is_library(Path::new("/none")));
    }
}
