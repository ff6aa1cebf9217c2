//! The page, read back by a parser of our own and by Prometheus' promtool.

use super::protobuf::{Bucket, MetricFamily, Span, Type};
use super::*;
use crate::collect::{Counts, Detail, Labels, MapUse, SeriesKey, SizeCounts, Statuses};
use crate::own::{PreviousScrape, SeriesCounts, TargetCounts};
use crate::pages::GaugeKey;
use crate::pages::{PageLabels, ProcessKey, Rejection};
use crate::sites::Refusal;
use prost::Message;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use streamhouse_abi::map::Counter;
use streamhouse_abi::page::Gauge;
use streamhouse_abi::{Role, Site, bucket};
use streamhouse_metrics::Kind;
use streamhouse_metrics::host::Host;
use streamhouse_metrics::sources::of_gauge;

fn site(site: Site, topic: &str, partition: Option<u32>) -> SiteSum {
    let labels = Labels {
        role: Role::Producer,
        instance_id: "host\\p\"1\"\nx".to_owned(),
        group: if site == Site::Poll { "g".to_owned() } else { String::new() },
        topic: topic.to_owned(),
        partition,
    };
    let mut counts = Counts { bytes: 1000, duration_ns: 1_500_000_000, ..Counts::default() };
    counts.operations[..2].copy_from_slice(&[3, 1]);
    counts.records[..2].copy_from_slice(&[30, 7]);
    counts.durations[0] = 1;
    counts.durations[bucket::of_ns(1_000_000_000)] = 2;
    counts.durations[bucket::PAST] = 4;
    if site == Site::Flush {
        let mut sizes = SizeCounts::default();
        sizes.records[bucket::of_size(10)] = 3;
        sizes.bytes[bucket::of_size(333)] = 3;
        counts.sizes = Some(Box::new(sizes));
    }
    let detail = Detail::of(site, 1).expect("each has one of this number");
    SiteSum {
        key: SeriesKey { site, detail, labels: Some(labels) },
        created: Instant::now(),
        overflowed: Statuses::default(),
        counts,
    }
}

fn sums(sites: Vec<SiteSum>) -> Sums {
    let mut counters = [0; _];
    counters[Counter::Hits as usize] = 42;
    counters[Counter::MapFull as usize] = 2;
    Sums {
        sites,
        counters,
        maps: vec![MapUse { name: "VALUES", entries: 3, capacity: 8192 }],
        held_back: 1,
        unlabelled_operations: 5,
        same_files: Vec::new(),
    }
}

fn state() -> State {
    let labels = |topic: &str| PageLabels {
        instance_id: "c".into(),
        group: "g".into(),
        topic: topic.into(),
        partition: Some(1),
    };
    State {
        series: BTreeMap::from([
            (GaugeKey { gauge: Gauge::ConsumerLagMilliseconds, labels: labels("t") }, 1234),
            (GaugeKey { gauge: Gauge::ConsumerCurrentOffset, labels: labels("t") }, u64::MAX),
            (GaugeKey { gauge: Gauge::GroupLagRecords, labels: labels("t") }, 17),
            (GaugeKey { gauge: Gauge::GroupLagMilliseconds, labels: labels("t") }, 2500),
        ]),
        processes: BTreeMap::from([(ProcessKey { role: Role::Consumer, instance_id: "c".into() }, true)]),
        pages_read: 9,
        rejected: BTreeMap::from([(Rejection::NotSealed, 2)]),
    }
}

fn own() -> Own {
    let targets = TargetCounts {
        attached: 1,
        refused: 1,
        forgotten: 5,
        sites_attached: 6,
        sites_refused: BTreeMap::from([(Refusal::NotOurNop, 2)]),
        processes: 3,
    };
    Own {
        targets,
        scrapes: 4,
        previous_scrape: Some(PreviousScrape { duration: Duration::from_micros(1500), bytes: 70_000 }),
        hit_cost: Some(Duration::from_nanos(500)),
        series: SeriesCounts { served: 12, max: 34, refused: 5 },
        host: Host::default(),
        sweep_age: Duration::from_millis(250),
    }
}

fn encoded(sums: Option<&Sums>, format: Format, buckets: ClassicBuckets) -> Vec<u8> {
    let scrape = Scrape { sums, state: &state(), own: &own(), clock: &WallClock::now() };
    encode(&scrape, format, buckets)
}

fn page_of(sites: Vec<SiteSum>, buckets: ClassicBuckets) -> String {
    text_of(encoded(Some(&sums(sites)), Format::Text, buckets))
}

fn text_of(page: Vec<u8>) -> String {
    String::from_utf8(page).expect("text is UTF-8")
}

fn full_page() -> String {
    let sites = Site::ALL.into_iter().map(|one| site(one, "t", Some(0))).collect();
    page_of(sites, ClassicBuckets::default())
}

/// The value of the only line that begins so.
fn value<'p>(page: &'p str, series: &str) -> &'p str {
    let mut values = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = values.next().unwrap_or_else(|| panic!("no {series} in\n{page}"));
    assert_eq!(values.next(), None, "{series} twice");
    value
}

#[test]
fn every_metric_of_the_catalog_is_served() {
    let page = full_page();
    // What the machine has left is another's to test: the machine of this test was not looked at.
    for metric in catalog::ALL.iter().filter(|metric| !metric.name.starts_with("streamhouse_host_")) {
        let in_state: Vec<_> = state().series.into_keys().map(|key| key.gauge).collect();
        let gauge = Gauge::ALL.into_iter().find(|gauge| of_gauge(*gauge).metric == *metric);
        let expected = gauge.is_none_or(|gauge| in_state.contains(&gauge));
        let head = format!("# TYPE {} {}\n", metric.name, metric.kind.name());
        assert_eq!(page.matches(&head).count(), usize::from(expected), "{}", metric.name);
    }
}

#[test]
fn counters_and_gauges_have_their_labels_in_order() {
    let page = full_page();
    let who = r#"instance_id="host\\p\"1\"\nx""#;
    let sent = format!("streamhouse_producer_records_sent_total{{{who},topic=\"t\",partition=\"0\"}}");
    assert_eq!(value(&page, &sent), "30");
    let errors = format!(
        "streamhouse_producer_send_errors_total{{{who},topic=\"t\",partition=\"0\",status=\"retry\"}}"
    );
    assert_eq!(value(&page, &errors), "7");
    let put = format!("streamhouse_object_store_operations_total{{{who},operation=\"get\",status=\"ok\"}}");
    assert_eq!(value(&page, &put), "3");
    let whose = r#"instance_id="c",group="g",topic="t",partition="1""#;
    assert_eq!(value(&page, &format!("streamhouse_consumer_lag_seconds{{{whose}}}")), "1.234");
    assert_eq!(
        value(&page, &format!("streamhouse_consumer_current_offset{{{whose}}}")),
        "18446744073709551615"
    );
    assert_eq!(value(&page, &format!("streamhouse_group_lag_records{{{whose}}}")), "17");
    assert_eq!(value(&page, &format!("streamhouse_group_lag_seconds{{{whose}}}")), "2.5");
    assert_eq!(value(&page, r#"streamhouse_process_up{role="consumer",instance_id="c"}"#), "1");
}

#[test]
fn the_probe_speaks_of_itself() {
    let page = full_page();
    for (series, expected) in [
        (r#"streamhouse_probe_targets{state="refused"}"#, "1"),
        ("streamhouse_probe_targets_forgotten_total", "5"),
        ("streamhouse_probe_last_sweep_age_seconds", "0.25"),
        (r#"streamhouse_probe_sites{state="attached"}"#, "6"),
        (r#"streamhouse_probe_sites_refused{reason="not_our_nop"}"#, "2"),
        ("streamhouse_probe_hits_total", "42"),
        ("streamhouse_probe_overhead_seconds_total", "2.1e-05"),
        ("streamhouse_probe_scrape_size_bytes", "70000"),
        (r#"streamhouse_probe_refused_total{reason="map_full"}"#, "2"),
        (r#"streamhouse_probe_refused_total{reason="unlabelled"}"#, "5"),
        (r#"streamhouse_probe_map_entries{map="VALUES"}"#, "3"),
        (r#"streamhouse_probe_map_capacity{map="VALUES"}"#, "8192"),
        ("streamhouse_probe_pages_read_total", "9"),
        (r#"streamhouse_probe_pages_rejected_total{reason="not_sealed"}"#, "2"),
        (r#"streamhouse_probe_pages_rejected_total{reason="bad_slot"}"#, "0"),
        ("streamhouse_probe_scrapes_total", "4"),
        ("streamhouse_probe_scrape_duration_seconds", "0.0015"),
    ] {
        assert_eq!(value(&page, series), expected, "{series}");
    }
    let without = text_of(encoded(None, Format::Text, ClassicBuckets::default()));
    assert!(!without.contains("probe_hits_total") && without.contains("streamhouse_process_up"));
}

/// Bounds and cumulative counts of the only histogram of a name.
fn buckets(page: &str, name: &str) -> Vec<(f64, u64)> {
    let bucket = format!("{name}_bucket{{");
    let lines = page.lines().filter(|line| line.starts_with(&bucket));
    lines
        .map(|line| {
            let (_, rest) = line.rsplit_once("le=\"").expect("every bucket has a bound");
            let (bound, count) = rest.split_once("\"} ").expect("and a count");
            (bound.parse().expect("a number"), count.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn histograms_are_cumulative_and_complete_at_every_resolution() {
    let name = "streamhouse_agent_commit_duration_seconds";
    for per_octave in ClassicBuckets::CHOICES {
        let classic = ClassicBuckets::per_octave(per_octave).expect("a choice");
        let page = page_of(vec![site(Site::Commit, "", None)], classic);
        let buckets = buckets(&page, name);
        assert_eq!(buckets.len(), 26 * per_octave as usize + 2);
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!((buckets[0], buckets.last().copied()), ((2f64.powi(-20), 1), Some((f64::INFINITY, 7))));
        // One second is an upper bound, and inclusive.
        assert!(buckets.contains(&(1.0, 3)));
        assert!(
            buckets
                .iter()
                .all(|(bound, count)| *count == if *bound < 1.0 { 1 } else { 3 } || bound.is_infinite())
        );
        let who = r#"instance_id="host\\p\"1\"\nx""#;
        assert_eq!(value(&page, &format!("{name}_count{{{who}}}")), "7");
        assert_eq!(value(&page, &format!("{name}_sum{{{who}}}")), "1.5");
    }
}

#[test]
fn partitions_of_a_topic_are_one_histogram() {
    let sites = vec![site(Site::Send, "t", Some(0)), site(Site::Send, "t", Some(1))];
    let page = page_of(sites, ClassicBuckets::default());
    let who = r#"instance_id="host\\p\"1\"\nx",topic="t""#;
    assert_eq!(value(&page, &format!("streamhouse_producer_send_duration_seconds_count{{{who}}}")), "14");
    assert_eq!(value(&page, &format!("streamhouse_producer_send_duration_seconds_sum{{{who}}}")), "3");
    for partition in ["0", "1"] {
        let series = format!("streamhouse_producer_records_sent_total{{{who},partition=\"{partition}\"}}");
        assert_eq!(value(&page, &series), "30");
    }
}

#[test]
fn the_overflow_series_has_a_name() {
    let overflow = SiteSum {
        key: SeriesKey { site: Site::Write, detail: Detail::None, labels: None },
        ..site(Site::Write, "", None)
    };
    let page = page_of(vec![overflow], ClassicBuckets::default());
    let series = r#"streamhouse_agent_records_written_total{instance_id="overflow",topic="",partition=""}"#;
    assert_eq!(value(&page, series), "30");
}

#[test]
fn failures_without_room_count_in_the_overflow_series() {
    let mut sum = site(Site::Write, "t", Some(0));
    sum.overflowed.insert(Status::Retry);
    let page = page_of(vec![sum], ClassicBuckets::default());
    let errors = "streamhouse_agent_write_errors_total";
    let overflow = format!(r#"{errors}{{instance_id="overflow",topic="",partition="",status="retry"}}"#);
    assert_eq!(value(&page, &overflow), "7");
    assert_eq!(page.lines().filter(|line| line.starts_with(errors)).count(), 1);
}

/// A page of every site in a format.
fn page_in(format: Format) -> Vec<u8> {
    let sites = Site::ALL.into_iter().map(|one| site(one, "t", Some(0))).collect();
    encoded(Some(&sums(sites)), format, ClassicBuckets::default())
}

#[test]
fn openmetrics_names_families_without_their_suffix_and_ends() {
    let page = text_of(page_in(Format::OpenMetrics));
    assert!(page.ends_with("\n# EOF\n") && page.matches("# EOF").count() == 1);
    let who = r#"instance_id="host\\p\"1\"\nx""#;
    let sent = "streamhouse_producer_bytes_sent";
    assert!(page.contains(&format!("# TYPE {sent} counter\n")));
    assert_eq!(value(&page, &format!("{sent}_total{{{who},topic=\"t\",partition=\"0\"}}")), "1000");
    let write = "streamhouse_agent_write_latency_seconds";
    assert!(page.contains(&format!("# UNIT {write} seconds\n")));
    let labels = format!("{who},topic=\"t\"");
    assert_eq!(value(&page, &format!("{write}_bucket{{{labels},le=\"1.0\"}}")), "3");
    assert_eq!(value(&page, &format!("{write}_bucket{{{labels},le=\"+Inf\"}}")), "7");
    for created in [
        format!("{write}_created{{{labels}}}"),
        format!("{sent}_created{{{who},topic=\"t\",partition=\"0\"}}"),
    ] {
        let since: f64 = value(&page, &created).parse().expect("seconds");
        assert!(since > 1.6e9, "{since}");
    }
    // A gauge has no beginning, and a counter that was there before the probe an unknown one.
    assert!(!page.contains("lag_seconds_created") && !page.contains("process_up_created"));
}

#[test]
fn every_openmetrics_line_has_the_form_of_the_standard() {
    let page = text_of(page_in(Format::OpenMetrics));
    let mut family = (String::new(), String::new());
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').expect("a type");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let name_end = line.find(['{', ' ']).expect("a number");
        let suffix = line[..name_end].strip_prefix(&family.0);
        let suffixes: &[&str] = match family.1.as_str() {
            "counter" => &["_total", "_created"],
            "gauge" => &[""],
            _ => &["_bucket", "_sum", "_count", "_created"],
        };
        assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line} of {family:?}");
    }
}

#[test]
fn protobuf_has_native_and_classic_buckets_of_the_same_numbers() {
    let page = page_in(Format::Protobuf);
    let mut rest = page.as_slice();
    let mut families = BTreeMap::new();
    while !rest.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut rest).expect("a family");
        families.insert(family.name.clone(), family);
    }
    let sent = &families["streamhouse_producer_records_sent_total"];
    assert_eq!(sent.kind, Type::Counter as i32);
    let counter = sent.metric[0].counter.as_ref().expect("a counter");
    assert_eq!(counter.value, 30.0);
    assert!(counter.created.as_ref().is_some_and(|created| created.seconds > 1_600_000_000));
    let labels: Vec<_> =
        sent.metric[0].label.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())).collect();
    assert_eq!(labels, [("instance_id", "host\\p\"1\"\nx"), ("topic", "t"), ("partition", "0")]);
    let lag = &families["streamhouse_consumer_lag_seconds"];
    assert_eq!(lag.metric[0].gauge.as_ref().map(|gauge| gauge.value), Some(1.234));

    let write =
        families["streamhouse_agent_write_latency_seconds"].metric[0].histogram.as_ref().expect("one");
    assert_eq!((write.sample_count, write.sample_sum, write.schema), (7, 1.5, 3));
    assert_eq!((write.zero_threshold, write.zero_count), (2f64.powi(-20), 1));
    assert_eq!(write.bucket.len(), 54);
    assert_eq!(write.bucket[53], Bucket { cumulative_count: 7, upper_bound: f64::INFINITY });
    // One second ends bucket 0 of the schema, and the first bucket past 64 seconds is 8 * 6 + 1.
    assert_eq!(write.positive_span, [Span { offset: 0, length: 1 }, Span { offset: 48, length: 1 }]);
    assert_eq!(write.positive_delta, [2, 2]);
    let sizes =
        families["streamhouse_producer_batch_size_records"].metric[0].histogram.as_ref().expect("one");
    // log2(10) * 8 is 26.6.
    assert_eq!(
        (sizes.zero_threshold, sizes.positive_span.as_slice()),
        (1.0, &[Span { offset: 27, length: 1 }][..])
    );
}

#[test]
fn neighbouring_native_buckets_share_a_span() {
    let mut one = site(Site::Commit, "", None);
    one.counts.durations = [0; bucket::COUNT];
    for (index, count) in [(1, 5), (2, 3), (3, 3), (10, 4), (12, 1)] {
        one.counts.durations[index] = count;
    }
    let page = encoded(Some(&sums(vec![one])), Format::Protobuf, ClassicBuckets::default());
    let mut rest = page.as_slice();
    let family = std::iter::from_fn(|| MetricFamily::decode_length_delimited(&mut rest).ok())
        .find(|family| family.name == "streamhouse_agent_commit_duration_seconds");
    let histogram = family.expect("served").metric[0].histogram.clone().expect("one");
    let spans: Vec<_> = histogram.positive_span.iter().map(|span| (span.offset, span.length)).collect();
    assert_eq!(spans, [(-159, 3), (6, 1), (1, 1)]);
    assert_eq!(histogram.positive_delta, [5, -2, 0, 1, -3]);
}

#[test]
fn equal_numbers_give_equal_bytes() {
    let sites = || vec![site(Site::Send, "b", Some(1)), site(Site::Send, "a", Some(0))];
    let reversed = || sites().into_iter().rev().collect();
    assert_eq!(page_of(sites(), ClassicBuckets::default()), page_of(reversed(), ClassicBuckets::default()));
}

#[test]
fn families_are_contiguous() {
    let page = full_page();
    let mut seen = std::collections::HashSet::new();
    let mut current = "";
    for line in page.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            current = head.split(' ').next().expect("a name");
            assert!(seen.insert(current), "{current} twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(current), "{line} under {current}");
        }
    }
    let histograms = catalog::ALL.iter().filter(|metric| metric.kind == Kind::Histogram);
    assert!(
        histograms.clone().count() > 0 && histograms.into_iter().all(|metric| seen.contains(metric.name))
    );
}

#[test]
fn promtool_accepts_the_page() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        let required = std::env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some();
        assert!(!required, "promtool is missing (Debian: prometheus)");
        eprintln!("skipped: promtool is not installed (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().expect("piped").write_all(full_page().as_bytes()).expect("read");
    let output = promtool.wait_with_output().expect("ended");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
