//! Whether a program can be preloaded into at all. The command reports that before the program runs, since the program
//! would run without a word otherwise.

use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache};
use rustix::process::{getegid, geteuid};
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
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

/// What is known of an ELF file.
enum Kind {
    /// For this kind of machine: whether it names a dynamic linker, and whether it is a shared object.
    Native { interpreter: bool, shared: bool },
    /// For another one, or of 32 bits.
    Foreign,
}

/// What keeps the library out of `program`, which is looked up as execvp(3) does. `None`: nothing that is known.
pub fn obstacle(program: &OsStr) -> Option<Obstacle> {
    let path = find(program)?;
    let file = File::open(&path).ok()?;
    let metadata = file.metadata().ok()?;
    let kind = kind(file)?;
    let gains = |bit, id, own| metadata.mode() & bit != 0 && id != own;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if gains(libc::S_ISUID, metadata.uid(), user) || gains(libc::S_ISGID, metadata.gid(), group) {
        return Some(Obstacle::Privileged);
    }
    match kind {
        Kind::Foreign => Some(Obstacle::Foreign),
        Kind::Native { interpreter, .. } => (!interpreter).then_some(Obstacle::Static),
    }
}

/// Whether the file at `path` is a shared object for this kind of machine.
pub fn is_library(path: &Path) -> bool {
    let kind = File::open(path).ok().and_then(kind);
    matches!(kind, Some(Kind::Native { shared: true, .. }))
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

/// What `file` is, if it is an ELF file.
fn kind(file: File) -> Option<Kind> {
    let file = ReadCache::new(file);
    match FileKind::parse(&file).ok()? {
        FileKind::Elf64 => {}
        FileKind::Elf32 => return Some(Kind::Foreign),
        _ => return None,
    }
    let header = FileHeader64::<Endianness>::parse(&file).ok()?;
    let endian = header.endian().ok()?;
    if !is_native(endian, header.e_machine(endian)) {
        return Some(Kind::Foreign);
    }
    // What cannot be read is left to the kernel's judgement.
    let segments = header.program_headers(endian, &file);
    let interprets = |segment: &ProgramHeader64<_>| segment.p_type(endian) == elf::PT_INTERP;
    Some(Kind::Native {
        interpreter: segments.map_or(true, |segments| segments.iter().any(interprets)),
        shared: header.e_type(endian) == elf::ET_DYN,
    })
}

/// Whether a file of 64 bits is for the processor that this command was built for.
fn is_native(endian: Endianness, machine: elf::Machine) -> bool {
    let own = match env::consts::ARCH {
        "x86_64" => elf::EM_X86_64,
        "aarch64" => elf::EM_AARCH64,
        _ => return true,
    };
    endian == Endianness::Little && machine == own
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
        // Only root can set a group that we do not have. Then it is reported. Then it is told.
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
