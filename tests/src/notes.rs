//! The USDT notes of a binary, read independently of the probe.

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection, ObjectSegment};
use std::collections::BTreeMap;
use std::path::Path;

/// The provider in notes of ours.
const PROVIDER: &str = "streamhouse";

/// One site of the provider `streamhouse`, by virtual addresses of the file.
#[derive(Clone, Debug)]
pub struct Note {
    /// Its name.
    pub name: String,
    /// Address of the nop.
    pub site: u64,
    /// Address of the semaphore.
    pub semaphore: u64,
    /// Argument string.
    pub arguments: String,
}

/// All notes of our provider. Binaries here are not prelinked: addresses are taken as they stand.
///
/// # Errors
///
/// When it is no such binary.
pub fn read(path: &Path) -> Result<Vec<Note>> {
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let section = file.section_by_name(".note.stapsdt").context("no .note.stapsdt")?;
    let mut rest = section.data()?;
    let mut notes = Vec::new();
    while rest.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes")) as usize;
        let (name_len, desc_len) = (word(0).next_multiple_of(4), word(4));
        let desc = rest.get(12 + name_len..12 + name_len + desc_len).context("a note is cut off")?;
        let address = |at: usize| u64::from_le_bytes(desc[at..at + 8].try_into().expect("eight bytes"));
        let strings: Vec<String> =
            desc[24..].split(|&byte| byte == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect();
        if strings[0] == PROVIDER {
            let (name, arguments) = (strings[1].clone(), strings[2].clone());
            notes.push(Note { name, site: address(0), semaphore: address(16), arguments });
        }
        rest = &rest[12 + name_len + desc_len.next_multiple_of(4)..];
    }
    Ok(notes)
}

/// The semaphores of a running process, by site.
///
/// # Errors
///
/// When the process is gone, does not run the binary, or has no sites.
pub fn semaphores(process: &Process, binary: &Path) -> Result<BTreeMap<String, u16>> {
    let pid = process.pid();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let name = std::fs::canonicalize(binary)?;
    let first = maps.lines().find(|line| line.ends_with(&*name.to_string_lossy())).context("not mapped")?;
    let base = u64::from_str_radix(first.split('-').next().context("no address")?, 16)?;
    let bytes = std::fs::read(binary)?;
    let file = object::File::parse(&*bytes)?;
    let lowest = file.segments().map(|segment| segment.address()).min().context("no segments")?;
    let bias = base - (lowest & !0xfff);
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut semaphores = BTreeMap::new();
    for note in read(binary)? {
        let mut value = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut value, bias + note.semaphore)?;
        semaphores.insert(note.name, u16::from_le_bytes(value));
    }
    ensure!(!semaphores.is_empty(), "{} has no sites", binary.display());
    Ok(semaphores)
}
