//! Hand-made files: a right one, and what an enemy would make of it.

use super::*;
use proptest::prelude::*;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;
/// Where the test file keeps its parts, as file offsets; addresses are [`MOVED`] more.
const TEXT: u64 = 0x1000;
const DATA: u64 = 0x2000;
const MOVED: u64 = 0x40_0000;
const NAMES: &[u8] = b"\0.note.stapsdt\0.stapsdt.base\0.shstrtab\0";

struct Note {
    provider: &'static str,
    name: String,
    arguments: &'static str,
    address: u64,
    base: u64,
    semaphore: u64,
}

fn note(name: &str) -> Note {
    Note {
        provider: PROVIDER,
        name: name.to_owned(),
        arguments: SITE_ARGUMENTS,
        address: MOVED + TEXT + 16,
        base: MOVED + 0x800,
        semaphore: MOVED + DATA + 8,
    }
}

impl Note {
    fn bytes(&self) -> Vec<u8> {
        let mut description = Vec::new();
        for number in [self.address, self.base, self.semaphore] {
            description.extend(number.to_le_bytes());
        }
        for string in [self.provider, &self.name, self.arguments] {
            description.extend(string.as_bytes());
            description.push(0);
        }
        let mut bytes = Vec::new();
        for number in [8, description.len() as u32, 3] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(b"stapsdt\0");
        bytes.extend(&description);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

fn words(numbers: &[(usize, u64)]) -> Vec<u8> {
    numbers.iter().flat_map(|(len, number)| number.to_le_bytes()[..*len].to_vec()).collect()
}

fn section(name: u64, kind: u64, address: u64, offset: u64, size: u64) -> Vec<u8> {
    words(&[
        (4, name),
        (4, kind),
        (8, 0),
        (8, address),
        (8, offset),
        (8, size),
        (4, 0),
        (4, 0),
        (8, 4),
        (8, 0),
    ])
}

fn segment(flags: u64, offset: u64, size: u64) -> Vec<u8> {
    words(&[
        (4, 1),
        (4, flags),
        (8, offset),
        (8, MOVED + offset),
        (8, MOVED + offset),
        (8, size),
        (8, size),
        (8, 0x1000),
    ])
}

/// A file with nops at `TEXT + 16`, `+ 32`, …, writable data, and these bytes as notes.
fn file(notes: &[u8]) -> Vec<u8> {
    file_with_data(notes, &[segment(6, DATA, 0x1000)])
}

/// The same with these segments for the data.
fn file_with_data(notes: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    let notes_at = 0x3000;
    let names_at = notes_at + notes.len();
    let sections_at = (names_at + NAMES.len()).next_multiple_of(8);
    let machine = u64::from(MACHINE.0);
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(words(&[(2, 3), (2, machine), (4, 1), (8, 0), (8, 64), (8, sections_at as u64), (4, 0)]));
    bytes.extend(words(&[
        (2, 64),
        (2, PROGRAM_HEADER as u64),
        (2, 1 + data.len() as u64),
        (2, SECTION_HEADER as u64),
        (2, 4),
        (2, 3),
    ]));
    assert_eq!(bytes.len(), HEADER);
    bytes.extend(segment(5, TEXT, 0x1000));
    bytes.extend(data.concat());
    bytes.resize(notes_at, 0);
    for place in (TEXT as usize + 16..DATA as usize).step_by(16) {
        bytes[place..place + SITE_NOP.len()].copy_from_slice(SITE_NOP);
    }
    bytes.extend(notes);
    bytes.extend(NAMES);
    bytes.resize(sections_at, 0);
    bytes.extend(section(0, 0, 0, 0, 0));
    bytes.extend(section(1, 7, 0, notes_at as u64, notes.len() as u64));
    bytes.extend(section(15, 1, MOVED + 0x800, 0x800, 1));
    bytes.extend(section(29, 3, 0, names_at as u64, NAMES.len() as u64));
    bytes
}

/// A file with one site, for other tests.
pub(crate) fn file_with_sites() -> Vec<u8> {
    file(&note("send").bytes())
}

/// A file without sites, for other tests.
pub(crate) fn plain_file() -> Vec<u8> {
    file(&[])
}

fn found(notes: &[Note]) -> Vec<FoundSite> {
    let notes: Vec<u8> = notes.iter().flat_map(Note::bytes).collect();
    find(file(&notes).as_slice()).expect("the headers are right")
}

fn places(notes: &[Note]) -> Vec<Result<SiteOffsets, Refusal>> {
    found(notes).into_iter().map(|site| site.place).collect()
}

#[test]
fn the_right_file_gives_its_sites() {
    let notes: Vec<Note> = Site::ALL
        .iter()
        .enumerate()
        .map(|(at, site)| Note {
            address: MOVED + TEXT + 16 * (at as u64 + 1),
            semaphore: MOVED + DATA + 2 * (at as u64 + 1),
            ..note(site.name())
        })
        .collect();
    let expected: Vec<_> = Site::ALL
        .iter()
        .enumerate()
        .map(|(at, &site)| {
            let at = at as u64 + 1;
            Ok(SiteOffsets { site, offset: TEXT + 16 * at, semaphore_offset: DATA + 2 * at })
        })
        .collect();
    assert_eq!(places(&notes), expected);
}

#[test]
fn the_same_through_a_file() {
    use std::io::Write;
    let mut on_disk = tempfile::tempfile().expect("a temporary file");
    let bytes = file(&note("send").bytes());
    on_disk.write_all(&bytes).expect("written");
    assert_eq!(find_in_file(&on_disk), find(bytes.as_slice()));
    assert!(find_in_file(&on_disk).expect("readable")[0].place.is_ok());
}

#[test]
fn a_moved_file_is_adjusted_by_its_base() {
    let moved_by = 0x10_0000;
    let prelinked = Note {
        address: note("send").address - moved_by,
        base: note("send").base - moved_by,
        semaphore: note("send").semaphore - moved_by,
        ..note("send")
    };
    assert_eq!(places(&[prelinked]), places(&[note("send")]));
}

#[test]
fn other_providers_are_not_ours() {
    assert_eq!(found(&[Note { provider: "libc", ..note("send") }]), []);
    assert_eq!(found(&[Note { provider: "", ..note("send") }]), []);
}

/// As linkers do it: data that is read-only after relocation ends on the page on which the other data begins.
#[test]
fn a_semaphore_on_a_page_of_two_writable_segments_is_refused() {
    let place = |first_ends: u64, semaphore: u64| {
        let data = [segment(6, DATA, first_ends), segment(6, DATA + first_ends, 0x1000 - first_ends)];
        let note = Note { semaphore: MOVED + DATA + semaphore, ..note("send") };
        find(file_with_data(&note.bytes(), &data).as_slice()).expect("the headers are right")[0].place
    };
    assert_eq!(place(0x800, 0x900), Err(Refusal::SharedSemaphore));
    assert_eq!(place(0x800, 0x100), Err(Refusal::SharedSemaphore));
    assert_eq!(place(0xffe, 0xffe), Err(Refusal::SharedSemaphore));
    assert!(place(0, 0x900).is_ok(), "an empty segment maps nothing");
}

#[test]
fn what_is_wrong_is_refused_with_its_reason() {
    let right = || note("send");
    let nop_across_the_end = MOVED + DATA - SITE_NOP.len() as u64 + 1;
    let cases = [
        (note("teleport"), Refusal::UnknownSite),
        (Note { arguments: "8@%rdi", ..right() }, Refusal::WrongArguments),
        (Note { address: MOVED + DATA, ..right() }, Refusal::NotExecutable),
        (Note { address: 0, ..right() }, Refusal::NotExecutable),
        (Note { address: u64::MAX, ..right() }, Refusal::NotExecutable),
        (Note { address: u64::MAX - 2, ..right() }, Refusal::NotExecutable),
        (Note { address: nop_across_the_end, ..right() }, Refusal::NotExecutable),
        (Note { address: MOVED + TEXT + 17, ..right() }, Refusal::NotOurNop),
        (Note { semaphore: 0, ..right() }, Refusal::NoSemaphore),
        (Note { semaphore: MOVED + TEXT + 16, ..right() }, Refusal::BadSemaphore),
        (Note { semaphore: MOVED + DATA + 9, ..right() }, Refusal::BadSemaphore),
        (Note { semaphore: MOVED + DATA + 0xfff, ..right() }, Refusal::BadSemaphore),
        (Note { semaphore: u64::MAX - 1, ..right() }, Refusal::BadSemaphore),
    ];
    for (note, reason) in cases {
        assert_eq!(places(&[note]), [Err(reason)]);
    }
}

#[test]
fn one_place_is_attached_once() {
    let places = places(&[note("send"), note("send"), note("poll")]);
    assert!(places[0].is_ok());
    assert_eq!(places[1..], [Err(Refusal::Duplicate), Err(Refusal::Duplicate)]);
}

#[test]
fn a_note_that_ends_after_its_provider_is_refused() {
    let mut bytes = note("send").bytes();
    // The description ends right after the provider.
    let length = 24 + PROVIDER.len() as u32 + 1;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes.truncate((20 + length as usize).next_multiple_of(4));
    let sites = find(file(&bytes).as_slice()).expect("the headers are right");
    assert_eq!(sites, [FoundSite { name: String::new(), place: Err(Refusal::UnknownSite) }]);
}

#[test]
fn lengths_near_the_end_of_the_address_space_are_no_lengths() {
    let first = note("send").bytes();
    for length in [u32::MAX, u32::MAX - 3, u32::MAX - 20, 1 << 31] {
        for field in [0, 4] {
            let mut second = note("poll").bytes();
            second[field..field + 4].copy_from_slice(&length.to_le_bytes());
            let sites = find(file(&[first.clone(), second].concat()).as_slice()).expect("headers are right");
            assert_eq!(sites.len(), 2);
            assert!(sites[0].place.is_ok());
            assert_eq!(sites[1].place, Err(Refusal::Malformed));
        }
    }
}

#[test]
fn headers_near_the_end_of_the_address_space_are_refused() {
    let right = file(&note("send").bytes());
    let notes_header = right.len() - 3 * SECTION_HEADER;
    for huge in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40] {
        for field in [32, 40, notes_header + 24, notes_header + 32] {
            let mut bytes = right.clone();
            bytes[field..field + 8].copy_from_slice(&huge.to_le_bytes());
            let sites = find(bytes.as_slice());
            let none = sites.as_ref().is_ok_and(|sites| sites.iter().all(|site| site.place.is_err()));
            assert!(sites.is_err() || none, "{field} {huge:x}: {sites:?}");
        }
    }
}

#[test]
fn a_million_notes_cost_a_bounded_answer() {
    let one = note("send").bytes();
    // Too many to be read, and not passed over in silence.
    let refused = FoundSite { name: String::new(), place: Err(Refusal::TooMany) };
    assert_eq!(find(file(&one.repeat(1_000_000)).as_slice()), Ok(vec![refused]));
    let sites = find(file(&one.repeat(30_000)).as_slice()).expect("small enough to be read");
    assert_eq!(sites.len(), FILE_SITES_MAX + 1);
    assert_eq!(sites.last().map(|site| site.place), Some(Err(Refusal::TooMany)));
    assert!(sites[0].place.is_ok());
}

#[test]
fn a_sparse_file_is_not_read_into_memory() {
    use std::os::unix::fs::FileExt;
    let bytes = file(&note("send").bytes());
    let sparse = tempfile::tempfile().expect("a temporary file");
    sparse.set_len(1 << 40).expect("sparse");
    sparse.write_all_at(&bytes, 0).expect("written");
    // 4096 sections at a place that holds none: more than their number allows is not read.
    sparse.write_all_at(&0xffff_u16.to_le_bytes(), 60).expect("written");
    assert!(find_in_file(&sparse).is_err());
    // The string table spans the whole file.
    let names_header = bytes.len() as u64 - SECTION_HEADER as u64;
    sparse.write_all_at(&4u16.to_le_bytes(), 60).expect("written");
    sparse.write_all_at(&(1u64 << 39).to_le_bytes(), names_header + 32).expect("written");
    assert_eq!(find_in_file(&sparse).expect("readable").len(), 1);
}

#[test]
fn every_truncation_is_survived() {
    let bytes = file(&note("send").bytes());
    for len in 0..bytes.len() {
        let sites = find(&bytes[..len]);
        assert!(sites.is_err() || sites == Ok(Vec::new()), "{len}: {sites:?}");
    }
}

#[test]
fn a_name_is_cut_and_made_printable() {
    let sites = found(&[note(&"\u{1f980}".repeat(100))]);
    assert!(sites[0].name.len() <= 2 * NAME_BYTES_MAX && sites[0].name.starts_with('\u{1f980}'));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let sites = find(bytes.as_slice());
        prop_assert!(sites.is_err() || sites == Ok(Vec::new()));
    }

    #[test]
    fn mutations_never_panic_and_never_attach_outside(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..32),
        headers_only in any::<bool>(),
    ) {
        let notes = [note("send"), Note { address: MOVED + TEXT + 32, ..note("poll") }];
        let mut bytes = file(&notes.iter().flat_map(Note::bytes).collect::<Vec<_>>());
        let len = bytes.len();
        for (at, value) in changes {
            // Half of the cases strike the headers and notes, where it hurts.
            let at = if headers_only { [at.index(176), 0x3000 + at.index(len - 0x3000)][at.index(2)] } else { at.index(len) };
            bytes[at] = value;
        }
        for site in find(bytes.as_slice()).unwrap_or_default() {
            if let Ok(place) = site.place {
                let nop = &bytes[place.offset as usize..][..SITE_NOP.len()];
                prop_assert_eq!(nop, SITE_NOP);
                prop_assert!(place.semaphore_offset as usize + 2 <= bytes.len());
                prop_assert_eq!(place.semaphore_offset % 2, 0);
            }
        }
    }
}
