//! The notes of an ELF file → the sites that can be attached.
//!
//! A compiler leaves one note a site in `.note.stapsdt`
//! (<https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation>). The file is not ours: whoever can run a
//! process can hand us any bytes. Everything here is a pure function of them, every size is bounded before it is
//! read, every sum is checked, and a site is believed only when the bytes it points to are what we emit: our nop in
//! executable memory, a semaphore in writable memory, the arguments of the treaty.

mod bounded;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashSet;
use std::fs::File;

use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, NoteIterator, SectionHeader};
use object::{Endianness, ReadCache, ReadRef};
use streamhouse_abi::{PROVIDER, SITE_ARGUMENTS, SITE_NOP, Site};

use crate::attach::SiteOffsets;
use bounded::Bounded;

/// Most sites one file may have; what follows is refused. A build has one site per hook, six in all.
pub const FILE_SITES_MAX: usize = 256;
/// Largest note section that is read. The largest in common use (a Java virtual machine's) has 100 KiB.
const NOTES_BYTES_MAX: u64 = 4 << 20;
/// Most sections of a file that is read. Executables and libraries have about 40.
const SECTIONS_MAX: u32 = 4096;
/// Most program headers of a file that is read. Executables and libraries have about 15.
const SEGMENTS_MAX: u32 = 256;
/// Most bytes read of one file, of whatever kind.
const FILE_READ_BYTES_MAX: u64 = 8 << 20;
/// Longest site name that is kept for display.
const NAME_BYTES_MAX: usize = 64;

/// The section of the notes.
const NOTES: &[u8] = b".note.stapsdt";
/// The section whose address tells how far a file was moved after it was linked.
const BASE: &[u8] = b".stapsdt.base";
/// The notes' owner.
const OWNER: &[u8] = b"stapsdt";
/// The notes' type.
const TYPE: elf::NoteType = elf::NoteType(3);

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

/// One note of our provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSite {
    /// The name in the note, at most 64 bytes of it.
    pub name: String,
    /// Where it is, or why it is not attached.
    pub place: Result<SiteOffsets, Refusal>,
}

/// Why a site is not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// A site that this probe does not know.
    #[error("this probe does not know the site; use a probe of the same release as the process")]
    UnknownSite,
    /// Its arguments are not the treaty's.
    #[error("its arguments are not \"{SITE_ARGUMENTS}\"")]
    WrongArguments,
    /// It lies in no executable segment.
    #[error("it lies outside the file's executable segments")]
    NotExecutable,
    /// The bytes there are not our nop.
    #[error("the bytes at the site are not the nop that hooks emit")]
    NotOurNop,
    /// It has no semaphore: it would cost something with nobody attached.
    #[error("it has no semaphore")]
    NoSemaphore,
    /// Its semaphore lies where no process can write it.
    #[error("its semaphore lies outside the file's writable segments, or at an odd address")]
    BadSemaphore,
    /// The file's page that its semaphore is on is mapped by two writable segments: in a process that starts later, the
    /// kernel would count in the wrong one (ADR 0009).
    #[error("the page of its semaphore is in two writable segments; build the program with these hooks")]
    SharedSemaphore,
    /// Another note has the same place.
    #[error("another note names the same place")]
    Duplicate,
    /// The note is cut short or its fields do not fit.
    #[error("its note is malformed")]
    Malformed,
    /// The file has too many sites.
    #[error("the file has more than {FILE_SITES_MAX} sites")]
    TooMany,
    /// The file as a whole could not be attached.
    #[error("the file could not be attached")]
    NotAttached,
    /// As many files as can be are observed already.
    #[error(
        "as many files as can be are attached already; this one is as soon as no process maps one of those"
    )]
    NoRoom,
}

impl Refusal {
    /// The value of the `reason` label.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::UnknownSite => "unknown_site",
            Refusal::WrongArguments => "wrong_arguments",
            Refusal::NotExecutable => "not_executable",
            Refusal::NotOurNop => "not_our_nop",
            Refusal::NoSemaphore => "no_semaphore",
            Refusal::BadSemaphore => "bad_semaphore",
            Refusal::SharedSemaphore => "shared_semaphore",
            Refusal::Duplicate => "duplicate",
            Refusal::Malformed => "malformed",
            Refusal::TooMany => "too_many",
            Refusal::NotAttached => "not_attached",
            Refusal::NoRoom => "no_room",
        }
    }
}

/// The file is no ELF file that we can read: nothing in it can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(&'static str);

impl From<object::Error> for Unreadable {
    fn from(_: object::Error) -> Unreadable {
        Unreadable("the ELF headers are malformed")
    }
}

/// The sites of an opened file. Reads headers, notes and the bytes at each site, never the whole file.
///
/// # Errors
///
/// [`Unreadable`] when the file is malformed; a file of another kind or processor just has no sites.
pub fn find_in_file(file: &File) -> Result<Vec<FoundSite>, Unreadable> {
    let cache = ReadCache::new(file);
    let budget = std::cell::Cell::new(FILE_READ_BYTES_MAX);
    find(Bounded::new(&cache, &budget))
}

/// The sites in the bytes of a file.
///
/// # Errors
///
/// [`Unreadable`] when the bytes are malformed; another kind of file or processor just has no sites.
pub fn find<'d, R: ReadRef<'d>>(data: R) -> Result<Vec<FoundSite>, Unreadable> {
    let Some(header) = our_header(data) else { return Ok(Vec::new()) };
    let endian = header.endian()?;
    if header.shnum(endian, data)? > SECTIONS_MAX || header.phnum(endian, data)? > SEGMENTS_MAX {
        return Err(Unreadable("the file has too many sections or segments"));
    }
    let sections = header.sections(endian, data)?;
    // The notes are looked for by type first, so that a hostile file cannot make us read thousands of names.
    let notes = sections
        .iter()
        .filter(|section| section.sh_type(endian) == elf::SHT_NOTE)
        .find(|section| sections.section_name(endian, *section) == Ok(NOTES));
    let Some(notes) = notes else { return Ok(Vec::new()) };
    if notes.sh_size(endian) > NOTES_BYTES_MAX {
        // No compiler leaves as many: whoever made this does not get away unseen.
        return Ok(vec![FoundSite { name: String::new(), place: Err(Refusal::TooMany) }]);
    }
    let image = Image {
        data,
        endian,
        segments: header.program_headers(endian, data)?,
        base: sections.section_by_name(endian, BASE).map(|(_, section)| section.sh_addr(endian)),
    };
    let notes = notes.notes(endian, data)?.ok_or(Unreadable("the note section holds no notes"))?;
    Ok(read_notes(&image, notes))
}

/// The header, when this is a 64-bit file of our processor.
fn our_header<'d, R: ReadRef<'d>>(data: R) -> Option<&'d FileHeader64<Endianness>> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    (header.is_little_endian() && header.e_machine(endian) == MACHINE).then_some(header)
}

fn read_notes<'d, R: ReadRef<'d>>(
    image: &Image<'d, R>,
    mut notes: NoteIterator<'d, FileHeader64<Endianness>>,
) -> Vec<FoundSite> {
    let mut found = Vec::new();
    let mut places = HashSet::new();
    loop {
        let note = match notes.next() {
            Ok(Some(note)) => note,
            Ok(None) => break,
            // Notes of other providers that end early are not our concern; ours that do are.
            Err(_) if found.is_empty() => break,
            Err(_) => {
                found.push(FoundSite { name: String::new(), place: Err(Refusal::Malformed) });
                break;
            }
        };
        if note.name() != OWNER || note.n_type(image.endian) != TYPE {
            continue;
        }
        let Some(note) = Description::parse(note.desc()) else { continue };
        if note.provider != PROVIDER.as_bytes() {
            continue;
        }
        if found.len() == FILE_SITES_MAX {
            found.push(FoundSite { name: String::new(), place: Err(Refusal::TooMany) });
            break;
        }
        let mut place = image.check(&note);
        if place.is_ok_and(|place| !places.insert(place.offset)) {
            place = Err(Refusal::Duplicate);
        }
        found.push(FoundSite { name: note.display_name(), place });
    }
    found
}

/// What one note says.
struct Description<'d> {
    address: u64,
    base: u64,
    semaphore: u64,
    provider: &'d [u8],
    name: &'d [u8],
    /// `None` when the note ends before them.
    arguments: Option<&'d [u8]>,
}

impl<'d> Description<'d> {
    /// `None` when it is too short to say whose it is.
    fn parse(bytes: &'d [u8]) -> Option<Description<'d>> {
        let (address, rest) = bytes.split_first_chunk::<8>()?;
        let (base, rest) = rest.split_first_chunk::<8>()?;
        let (semaphore, rest) = rest.split_first_chunk::<8>()?;
        let mut strings = rest.split(|byte| *byte == 0);
        Some(Description {
            address: u64::from_le_bytes(*address),
            base: u64::from_le_bytes(*base),
            semaphore: u64::from_le_bytes(*semaphore),
            provider: strings.next()?,
            name: strings.next().unwrap_or_default(),
            arguments: strings.next(),
        })
    }

    fn display_name(&self) -> String {
        String::from_utf8_lossy(&self.name[..self.name.len().min(NAME_BYTES_MAX)]).into_owned()
    }
}

/// The parts of a file that a site is checked against.
struct Image<'d, R> {
    data: R,
    endian: Endianness,
    segments: &'d [ProgramHeader64<Endianness>],
    /// Address of `.stapsdt.base` in the file as it is now.
    base: Option<u64>,
}

impl<'d, R: ReadRef<'d>> Image<'d, R> {
    fn check(&self, note: &Description<'_>) -> Result<SiteOffsets, Refusal> {
        let name = std::str::from_utf8(note.name).map_err(|_| Refusal::UnknownSite)?;
        let site = Site::from_name(name).ok_or(Refusal::UnknownSite)?;
        if note.arguments.ok_or(Refusal::Malformed)? != SITE_ARGUMENTS.as_bytes() {
            return Err(Refusal::WrongArguments);
        }
        // Prelinking moves a file and leaves the notes as they were; the base tells by how much.
        let moved = match self.base {
            Some(base) if note.base != 0 => base.wrapping_sub(note.base),
            _ => 0,
        };
        let nop_len = SITE_NOP.len() as u64;
        let offset = self
            .offset_of(note.address.wrapping_add(moved), nop_len, elf::PF_X)
            .ok_or(Refusal::NotExecutable)?;
        if self.data.read_bytes_at(offset, nop_len) != Ok(SITE_NOP) {
            return Err(Refusal::NotOurNop);
        }
        if note.semaphore == 0 {
            return Err(Refusal::NoSemaphore);
        }
        let semaphore_offset =
            self.offset_of(note.semaphore.wrapping_add(moved), 2, elf::PF_W).ok_or(Refusal::BadSemaphore)?;
        // The kernel refuses the whole link for one semaphore at an odd offset; 0 would mean none.
        let misplaced = semaphore_offset == 0 || semaphore_offset % 2 != 0;
        if misplaced || self.data.read_bytes_at(semaphore_offset, 2).is_err() {
            return Err(Refusal::BadSemaphore);
        }
        if self.writable_mappings_of(semaphore_offset) != 1 {
            return Err(Refusal::SharedSemaphore);
        }
        Ok(SiteOffsets { site, offset, semaphore_offset })
    }

    /// How many writable segments map the page of the file that `offset` is on.
    fn writable_mappings_of(&self, offset: u64) -> usize {
        let page_len = rustix::param::page_size() as u64;
        let page = offset / page_len;
        let maps = |segment: &&ProgramHeader64<Endianness>| {
            let begin = segment.p_offset.get(self.endian);
            let end = begin.saturating_add(segment.p_filesz.get(self.endian));
            segment.p_type.get(self.endian) == elf::PT_LOAD
                && segment.p_flags.get(self.endian).contains(elf::PF_W)
                && (begin / page_len..end.div_ceil(page_len)).contains(&page)
        };
        self.segments.iter().filter(maps).count()
    }

    /// File offset of `len` bytes at an address that a segment with `flags` loads from the file.
    fn offset_of(&self, address: u64, len: u64, flags: elf::ProgramFlags) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            if segment.p_type.get(self.endian) != elf::PT_LOAD
                || !segment.p_flags.get(self.endian).contains(flags)
            {
                return None;
            }
            let within = address.checked_sub(segment.p_vaddr.get(self.endian))?;
            let end = within.checked_add(len)?;
            if end > segment.p_filesz.get(self.endian) {
                return None;
            }
            let offset = segment.p_offset.get(self.endian).checked_add(within)?;
            // Offsets are signed in the kernel.
            i64::try_from(offset.checked_add(len)?).is_ok().then_some(offset)
        })
    }
}
