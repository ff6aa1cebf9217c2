//! What the probe reads of others, as it should be.

use std::mem::offset_of;

use streamhouse_abi::page::{
    ARENA_OFFSET, CELL, Gauge, Header, KIND_LABEL_SET, KIND_STRING, LabelSet, MAGIC, VERSION,
};
use streamhouse_abi::{PROVIDER, Role, SITE_ARGUMENTS, SITE_NOP, Site};

/// Where the executable has its parts.
const TEXT: usize = 0x100;
const DATA: usize = 0x1000;
const NOTES: usize = 0x1100;
/// Names of sections, and where each begins.
const NAMES: &[u8] = b"\0.note.stapsdt\0.shstrtab\0";

/// Numbers of so many bytes each.
fn words(numbers: &[(usize, usize)]) -> Vec<u8> {
    numbers.iter().flat_map(|(len, number)| (*number as u64).to_le_bytes()[..*len].to_vec()).collect()
}

/// The smallest executable that has every site: one segment of code, one of data, and the notes.
pub(super) fn executable() -> Vec<u8> {
    let notes: Vec<u8> = Site::ALL.into_iter().flat_map(note).collect();
    let names = NOTES + notes.len();
    let sections = (names + NAMES.len()).next_multiple_of(8);
    // The processor is that of `object`'s build: 62 is x86-64, 183 aarch64.
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(words(&[(2, 3), (2, machine), (4, 1), (8, 0), (8, 64), (8, sections), (4, 0)]));
    file.extend(words(&[(2, 64), (2, 56), (2, 2), (2, 64), (2, 3), (2, 2)]));
    for (flags, offset) in [(5, TEXT), (6, DATA)] {
        let len = 0x100;
        file.extend(words(&[
            (4, 1),
            (4, flags),
            (8, offset),
            (8, offset),
            (8, offset),
            (8, len),
            (8, len),
            (8, CELL),
        ]));
    }
    file.resize(NOTES, 0);
    for site in Site::ALL {
        let place = place(site);
        file[place..place + SITE_NOP.len()].copy_from_slice(SITE_NOP);
    }
    file.extend(notes);
    file.extend(NAMES);
    file.resize(sections, 0);
    let section = |name, kind, offset, len| {
        words(&[(4, name), (4, kind), (8, 0), (8, 0), (8, offset), (8, len), (4, 0), (4, 0), (8, 4), (8, 0)])
    };
    file.extend(section(0, 0, 0, 0));
    file.extend(section(1, 7, NOTES, names - NOTES));
    file.extend(section(15, 3, names, NAMES.len()));
    file
}

fn place(site: Site) -> usize {
    TEXT + 16 * (1 + site as usize)
}

fn note(site: Site) -> Vec<u8> {
    let mut description = words(&[(8, place(site)), (8, 0), (8, DATA + 2 + 2 * site as usize)]);
    for string in [PROVIDER, site.name(), SITE_ARGUMENTS] {
        description.extend(string.as_bytes());
        description.push(0);
    }
    let mut note = words(&[(4, 8), (4, description.len()), (4, 3)]);
    note.extend(b"stapsdt\0");
    note.extend(description);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A consumer's page with one value.
pub(super) fn page() -> Vec<u8> {
    let mut cells = Vec::new();
    for text in ["client-1", "orders", "readers"] {
        cells.extend(words(&[(4, KIND_STRING as usize), (4, text.len())]));
        cells.extend(text.as_bytes());
        cells.resize(cells.len().next_multiple_of(CELL), 0);
    }
    let none = LabelSet::NONE as usize;
    cells.extend(words(&[
        (4, KIND_LABEL_SET as usize),
        (4, 0),
        (4, 1),
        (4, 2),
        (4, 7),
        (4, none),
        (4, none),
        (4, none),
    ]));
    cells.extend(words(&[(4, Gauge::ConsumerLagRecords as usize), (4, 3), (8, 1), (8, 1_000), (8, 42)]));
    let mut page = vec![0; ARENA_OFFSET];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(offset_of!(Header, magic), &MAGIC.to_le_bytes());
    put(offset_of!(Header, version), &VERSION.to_le_bytes());
    put(offset_of!(Header, pid), &7u32.to_le_bytes());
    put(offset_of!(Header, role), &(Role::Consumer as u32).to_le_bytes());
    put(offset_of!(Header, cells_used), &((cells.len() / CELL) as u32).to_le_bytes());
    put(offset_of!(Header, instance_id), b"client-1");
    page.extend(cells);
    page
}

/// Configurations of who may scrape.
pub(super) fn web_configs() -> Vec<(&'static str, Vec<u8>)> {
    let documented: &[u8] = include_bytes!("../../../docs/web-config.yml");
    let whole: &[u8] = b"tls_server_config: {cert_file: a, key_file: b, client_auth_type: NoClientCert, min_version: TLS12, \
        max_version: TLS13, cipher_suites: [x], curve_preferences: [X25519], prefer_server_cipher_suites: true}\n\
        http_server_config: {http2: true, headers: {X-Frame-Options: deny}}\n";
    vec![("documented", documented.to_vec()), ("whole", whole.to_vec())]
}

/// Requests as they come.
pub(super) fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let request = |text: &str| text.replace('\n', "\r\n").into_bytes();
    vec![
        (
            "prometheus",
            request(
                "GET /metrics HTTP/1.1\nHost: x\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\n\
                 Accept-Encoding: gzip\nX-Prometheus-Scrape-Timeout-Seconds: 10\nAuthorization: Basic YTpi\n\n",
            ),
        ),
        ("old", request("GET /ready HTTP/1.0\n\n")),
        ("body", request("POST /targets HTTP/1.1\nHost: x\nContent-Length: 2\n\nhi")),
        ("chunks", request("PUT / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n")),
    ]
}
