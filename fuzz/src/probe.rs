//! What the probe reads of others.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use streamhouse_abi::SITE_NOP;
use streamhouse_abi::limits::CLIENT_PAGE_BYTES;
use streamhouse_abi::page::ARENA_OFFSET;
use streamhouse_probe::encode::{ClassicBuckets, Format, Scrape, WallClock, encode};
use streamhouse_probe::http::serve_one;
use streamhouse_probe::own::Own;
use streamhouse_probe::pages::{GaugeKey, PAGE_SLOTS_MAX, State, parse_head, parse_slots};
use streamhouse_probe::probe::Probe;
use streamhouse_probe::room::Room;
use streamhouse_probe::sites::{self, FILE_SITES_MAX};
use streamhouse_probe::web::Web;
use streamhouse_probe::web::config::WebConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

/// An ELF file: a site that is believed is our nop, behind a semaphore of its own.
pub fn notes(data: &[u8]) {
    let Ok(found) = sites::find(data) else { return };
    assert!(found.len() <= FILE_SITES_MAX + 1);
    let mut places = HashSet::new();
    for place in found.iter().filter_map(|site| site.place.ok()) {
        let begin = usize::try_from(place.offset).expect("it is in the file");
        assert_eq!(data.get(begin..begin + SITE_NOP.len()), Some(SITE_NOP));
        assert!(place.semaphore_offset != 0 && place.semaphore_offset.is_multiple_of(2));
        assert!(place.semaphore_offset + 2 <= data.len() as u64);
        assert!(places.insert(place.offset), "two sites at one place");
    }
}

/// A state page: what is believed of it makes lines, and nothing in a label can make another one.
pub fn page(data: &[u8]) {
    let Ok(Some(head)) = parse_head(data, CLIENT_PAGE_BYTES as u64) else { return };
    let arena = &data[ARENA_OFFSET..];
    let slots = parse_slots(arena, head.used_bytes - ARENA_OFFSET);
    assert!(slots.values.len() <= PAGE_SLOTS_MAX && slots.values.len() <= arena.len());
    let series: BTreeMap<GaugeKey, u64> = slots
        .values
        .into_iter()
        .map(|slot| (GaugeKey { gauge: slot.gauge, labels: slot.labels }, slot.value))
        .collect();
    let lines = |state: &State, format| {
        let own = Own::default();
        let scrape = Scrape { sums: None, state, own: &own, clock: &CLOCK };
        let page = encode(&scrape, format, ClassicBuckets::default());
        String::from_utf8(page).expect("text").lines().filter(|line| !line.starts_with('#')).count()
    };
    let count = series.len();
    let state = State { series, ..State::default() };
    for format in [Format::Text, Format::OpenMetrics] {
        assert_eq!(lines(&state, format), lines(&State::default(), format) + count);
    }
}

static CLOCK: LazyLock<WallClock> = LazyLock::new(WallClock::now);

/// A web configuration.
pub fn web_config(data: &[u8]) {
    if let Ok(config) = WebConfig::parse(data) {
        assert_eq!(WebConfig::parse(data), Ok(config));
    }
}

/// A request, or what somebody takes for one: whatever it is, the answer is one of HTTP or none.
pub fn http(data: &[u8]) {
    thread_local! {
        static SERVED: RefCell<Served> = RefCell::new(Served::new());
    }
    SERVED.with_borrow(|served| served.answer(data));
}

struct Served {
    runtime: Runtime,
    probe: Arc<Probe>,
    web: Arc<Web>,
}

impl Served {
    fn new() -> Served {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let probe = Probe::new(Err("no kernel here".to_owned()), Room::default());
        Served { runtime, probe: Arc::new(probe), web: Arc::new(Web::open()) }
    }

    fn answer(&self, data: &[u8]) {
        let answer = self.runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(data.len().max(1));
            client.write_all(data).await.expect("there is room");
            client.shutdown().await.expect("it is open");
            let served = serve_one(server, self.probe.clone(), self.web.clone(), ClassicBuckets::default());
            let mut answer = Vec::new();
            let (_, read) = tokio::join!(served, client.read_to_end(&mut answer));
            read.expect("it was closed well");
            answer
        });
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    }
}
