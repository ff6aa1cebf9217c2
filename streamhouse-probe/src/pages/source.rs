//! The state page of a process: find its memfd among the process's files, check it, copy it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::SealFlags;
use streamhouse_abi::Role;
use streamhouse_abi::limits::AGENT_PAGE_BYTES;
use streamhouse_abi::page::{ARENA_OFFSET, MEMFD_NAME};

use super::layout::{PageHead, Rejection, Slots, parse_head, parse_slots};
use crate::files::{FileId, open_regular};

/// Most open files of a process that are looked through for its page.
const FILES_MAX: usize = 65_536;

/// An opened state page. The file is kept: it gives the final values when the process has gone.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    size: u64,
    /// What the process made first.
    pub role: Role,
    /// Agent or client id.
    pub instance_id: Arc<str>,
}

/// What looking for a process's page gave.
#[derive(Debug)]
pub enum Sought {
    /// It is there.
    Page(PageFile),
    /// Not yet: the process is still making it, or has gone.
    NotYet,
    /// It is another process's, inherited by a fork.
    Inherited,
    /// It is not believed.
    Rejected(Rejection),
}

/// Opens the page `id`, which the process maps, through its open files. `process` is its directory in `/proc`;
/// `own_pid` is its pid as it sees it itself.
pub fn open(process: &Path, id: FileId, own_pid: u32) -> Sought {
    let Some(path) = find_descriptor(process, id) else { return Sought::NotYet };
    let Ok((file, stat)) = open_regular(&path) else { return Sought::NotYet };
    if FileId::of(&stat) != id {
        return Sought::NotYet;
    }
    match check(file, stat.st_size.try_into().unwrap_or(0), own_pid) {
        Ok(sought) => sought,
        Err(rejection) => Sought::Rejected(rejection),
    }
}

fn find_descriptor(process: &Path, id: FileId) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(process.join("fd")).ok()?;
    entries.take(FILES_MAX).filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        // The name first, which is asked of no file system: one that does not answer would keep us. Following the link
        // asks what the file is; it opens nothing.
        is_named_as_page(path) && rustix::fs::stat(path).is_ok_and(|stat| FileId::of(&stat) == id)
    })
}

/// Whether this open file is a memfd called as pages are.
fn is_named_as_page(path: &Path) -> bool {
    let link = std::fs::read_link(path).unwrap_or_default();
    let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("memfd:").and_then(|name| name.strip_suffix(" (deleted)")) == Some(MEMFD_NAME)
}

/// Believes a file to be the page of the process that calls itself `own_pid`, or not.
pub(super) fn check(file: File, size: u64, own_pid: u32) -> Result<Sought, Rejection> {
    // Only a memfd answers; an ordinary file is an invalid argument.
    let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| Rejection::NotSealed)?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(Rejection::NotSealed);
    }
    if !(ARENA_OFFSET as u64..=AGENT_PAGE_BYTES as u64).contains(&size) {
        return Err(Rejection::BadSize);
    }
    let Some(head) = read_head(&file, size)? else { return Ok(Sought::NotYet) };
    if head.pid != own_pid {
        return Ok(Sought::Inherited);
    }
    let PageHead { role, instance_id, .. } = head;
    Ok(Sought::Page(PageFile { file, size, role, instance_id }))
}

fn read_head(file: &File, size: u64) -> Result<Option<PageHead>, Rejection> {
    let mut bytes = [0; ARENA_OFFSET];
    read_at(file, &mut bytes, 0).map_err(|_| Rejection::Unreadable)?;
    parse_head(&bytes, size)
}

/// Fills `buffer` from `offset`.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

impl PageFile {
    /// How many bytes are in use just now, as the page says; 0 when it cannot be believed.
    pub(super) fn used_bytes(&self) -> usize {
        read_head(&self.file, self.size).ok().flatten().map_or(0, |head| head.used_bytes)
    }

    /// The nonce of the process if it serves its metrics itself, which it may begin to at any time.
    pub(super) fn self_serving(&self) -> Option<u64> {
        let head = read_head(&self.file, self.size).ok().flatten()?;
        head.serves_metrics.then_some(head.nonce)
    }

    /// Copies what is in use into `buffer` and reads it. `budget` is how many bytes may still be read, and is lowered.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] when it is not believed, or larger than the budget.
    pub(super) fn read(&self, buffer: &mut Vec<u8>, budget: &mut usize) -> Result<Slots, Rejection> {
        buffer.clear();
        self.copy_more(buffer, budget)?;
        let slot_bytes = buffer.len();
        // A retired slot may have been used again for labels that lie behind what was in use when the copy began; they
        // were counted as used before the slot was published, so that they are in what is in use now.
        self.copy_more(buffer, budget)?;
        Ok(parse_slots(buffer, slot_bytes))
    }

    /// Copies the cells that are in use and not in `cells` yet.
    fn copy_more(&self, cells: &mut Vec<u8>, budget: &mut usize) -> Result<(), Rejection> {
        let head = read_head(&self.file, self.size)?.ok_or(Rejection::BadHeader)?;
        let (from, to) = (cells.len(), head.used_bytes - ARENA_OFFSET);
        if to > from {
            *budget = budget.checked_sub(to - from).ok_or(Rejection::TooMuch)?;
            cells.resize(to, 0);
            read_at(&self.file, &mut cells[from..], (ARENA_OFFSET + from) as u64)
                .map_err(|_| Rejection::Unreadable)?;
        }
        Ok(())
    }
}
