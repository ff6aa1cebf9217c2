//! Lines of `/proc/PID/maps` → the files a process executes from, and its state page.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use streamhouse_abi::page::MEMFD_NAME;

use crate::files::FileId;

/// Most bytes of a process's mappings that are read: more than the kernel's default limit of 65 530 mappings takes.
const MAPS_BYTES_MAX: u64 = 16 << 20;

/// A file that a process maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mapped {
    pub(super) id: FileId,
    pub(super) kind: MappedKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum MappedKind {
    /// An executable mapping of a file, by its name in the process's root.
    Code(PathBuf),
    /// The same, and the name is gone.
    DeletedCode(PathBuf),
    /// A memfd with the name of state pages.
    Page,
}

/// The distinct files that matter among the mappings of a process.
pub(super) fn read(process: &Path) -> io::Result<Vec<Mapped>> {
    let mut text = Vec::new();
    std::fs::File::open(process.join("maps"))?.take(MAPS_BYTES_MAX).read_to_end(&mut text)?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mapped> {
    let mut seen = HashSet::new();
    let lines = text.split(|byte| *byte == b'\n').filter_map(parse_line);
    lines.filter(|mapped| seen.insert(mapped.id)).collect()
}

/// `start-end perms offset major:minor inode   path`, see proc_pid_maps(5).
fn parse_line(line: &[u8]) -> Option<Mapped> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let (_range, permissions, _offset) = (fields.next()?, fields.next()?, fields.next()?);
    let device = std::str::from_utf8(fields.next()?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.next()?.trim_ascii_start();
    let (major, minor) = device.split_once(':')?;
    let device =
        rustix::fs::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let id = FileId { device, inode };
    let (name, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(name) => (name, true),
        None => (path, false),
    };
    if deleted && name.strip_prefix(b"/memfd:").is_some_and(|name| name == MEMFD_NAME.as_bytes()) {
        return Some(Mapped { id, kind: MappedKind::Page });
    }
    if permissions.get(2) != Some(&b'x') || !has_file(id, name) {
        return None;
    }
    let path = PathBuf::from(OsStr::from_bytes(&unescape(name)));
    Some(Mapped { id, kind: if deleted { MappedKind::DeletedCode(path) } else { MappedKind::Code(path) } })
}

/// Whether there is a file behind a mapping of this name. Executable memory without one, as code generators use it, has
/// no notes.
pub(super) fn has_file(id: FileId, name: &[u8]) -> bool {
    let nameless = [b"/memfd:".as_slice(), b"/dev/zero", b"/SYSV", b"/[", b"//"];
    id.inode != 0 && name.starts_with(b"/") && !nameless.iter().any(|prefix| name.starts_with(prefix))
}

/// The kernel writes a line break in a name as `\012`, and nothing else.
fn unescape(name: &[u8]) -> Vec<u8> {
    const ESCAPE: &[u8] = b"\\012";
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.first() {
        if rest.starts_with(ESCAPE) {
            plain.push(b'\n');
            rest = &rest[ESCAPE.len()..];
        } else {
            plain.push(*first);
            rest = &rest[1..];
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
55d0-55d1 r--p 00000000 08:01 100                        /usr/bin/agent
55d1-55d2 r-xp 00001000 08:01 100                        /usr/bin/agent
55d2-55d3 r-xp 00002000 08:01 100                        /usr/bin/agent
7f00-7f01 r-xp 00000000 103:0a 200                       /usr/lib/a b\\012c.so
7f01-7f02 r-xp 00000000 08:01 300                        /usr/lib/old.so (deleted)
7f02-7f03 rw-s 00000000 00:01 400                        /memfd:streamhouse (deleted)
7f03-7f04 rw-s 00000000 00:01 500                        /memfd:streamhouse2 (deleted)
7f04-7f05 rwxs 00000000 00:01 600                        /memfd:doublemapper (deleted)
7f05-7f06 rwxp 00000000 00:00 0
7f06-7f07 r-xp 00000000 00:00 0                          [vdso]
7f07-7f08 r--p 00000000 08:01 700                        /usr/share/data
7f08-7f09 rwxp 00000000 00:01 800                        /dev/zero (deleted)
";

    #[test]
    fn code_and_pages_are_found_once_and_nothing_else() {
        let id = |major, minor, inode| FileId { device: rustix::fs::makedev(major, minor), inode };
        assert_eq!(
            parse(TEXT),
            [
                Mapped { id: id(8, 1, 100), kind: MappedKind::Code("/usr/bin/agent".into()) },
                Mapped { id: id(0x103, 10, 200), kind: MappedKind::Code("/usr/lib/a b\nc.so".into()) },
                Mapped { id: id(8, 1, 300), kind: MappedKind::DeletedCode("/usr/lib/old.so".into()) },
                Mapped { id: id(0, 1, 400), kind: MappedKind::Page },
            ]
        );
    }

    #[test]
    fn odd_lines_are_passed_over() {
        for line in ["", " ", "a b c d e f", "1-2 r-xp 0 8:1 x /a", "1-2 r-xp 0 81 5 /a", "1-2 r-xp 0 8:1 5"]
        {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn our_own_mappings_name_files_that_exist() {
        let mapped = read(Path::new("/proc/self")).expect("our own");
        let own = std::env::current_exe().expect("known");
        assert!(mapped.iter().any(|mapped| mapped.kind == MappedKind::Code(own.clone())), "{mapped:?}");
    }
}
