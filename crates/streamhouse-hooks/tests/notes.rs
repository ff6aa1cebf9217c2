//! The sites are there for any tracer to find.
#![cfg(all(target_os = "linux", not(feature = "disabled")))]

mod support;

use streamhouse_abi::{SITE_ARGUMENTS, SITE_NOP};
use streamhouse_hooks::{Site, Started};

/// No hook is called here, and yet the site of each is in this executable and its note points to it.
#[test]
fn every_site_is_noted_once_and_is_our_nop() {
    let notes = support::notes();
    let mut names: Vec<_> = notes.iter().map(|note| note.name.as_str()).collect();
    names.sort_unstable();
    let mut expected: Vec<_> = Site::ALL.iter().map(|site| site.name()).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for note in &notes {
        assert_eq!(note.arguments, SITE_ARGUMENTS, "{}", note.name);
        assert_eq!(note.nop(), SITE_NOP, "{}", note.name);
    }
}

/// No other segment is on that page, wherever the linker puts the data around it: ADR 0009.
#[test]
fn the_semaphores_begin_a_page() {
    let first = support::notes().iter().map(support::Note::semaphore).min().unwrap();
    assert_eq!(first % rustix::param::page_size(), 0);
}

#[test]
fn the_semaphore_of_a_note_is_the_one_its_hook_looks_at() {
    for site in Site::ALL {
        let notes = support::notes();
        let note = notes.iter().find(|note| note.name == site.name()).unwrap();
        assert_eq!(Started::now_if(site), Started::UNTIMED, "{}", note.name);
        let attached = note.attach();
        assert_eq!(attached.count(), 1);
        for other in Site::ALL {
            assert_eq!(Started::now_if(other) != Started::UNTIMED, other == site, "{}", note.name);
        }
        drop(attached);
        assert_eq!(Started::now_if(site), Started::UNTIMED, "{}", note.name);
    }
}
