//! What an operator looks at: by topic and instance, from what has changed in an interval.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use streamhouse_metrics::{Metric, catalog};

use super::snapshot::{Histogram, Snapshot};
use crate::list::printable;

/// One interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct View {
    /// How long it was.
    pub(crate) seconds: f64,
    /// What producers sent, agents wrote and consumers polled.
    pub(crate) activities: Vec<Activity>,
    /// Where the time of agents' writes went.
    pub(crate) writes: Vec<WriteTime>,
    /// How far each group is behind.
    pub(crate) groups: Vec<Group>,
    /// Processes that the probe observes.
    pub(crate) processes: f64,
    /// Sites that are not attached.
    pub(crate) sites_refused: f64,
}

/// What one process does with one topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Activity {
    /// `send`, `write` or `poll`.
    pub(crate) activity: &'static str,
    pub(crate) topic: String,
    pub(crate) instance_id: String,
    /// Of consumers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    pub(crate) records_per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) errors_per_second: f64,
    /// Of a record that was sent, of a batch that was written, of a partition's fetch that was polled.
    #[serde(flatten)]
    pub(crate) durations: Quantiles,
}

/// `None` when nothing ended in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50_seconds: Option<f64>,
    pub(crate) p99_seconds: Option<f64>,
    pub(crate) p999_seconds: Option<f64>,
}

/// Where the mean batch spends its time in an agent, from its arrival until it is durable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WriteTime {
    pub(crate) instance_id: String,
    pub(crate) batches_per_second: f64,
    pub(crate) mean_seconds: f64,
    /// What is left: for the flush to begin, and for the commits before it.
    pub(crate) waiting_seconds: f64,
    pub(crate) object_store_seconds: f64,
    pub(crate) commit_seconds: f64,
}

/// How far a group is behind on a topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Group {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) lag_records: f64,
    pub(crate) lag_seconds: f64,
}

/// The metrics of an activity.
struct Source {
    activity: &'static str,
    records: &'static Metric,
    bytes: &'static Metric,
    errors: &'static Metric,
    durations: &'static Metric,
}

static SOURCES: [Source; 3] = [
    Source {
        activity: "send",
        records: &catalog::PRODUCER_RECORDS_SENT,
        bytes: &catalog::PRODUCER_BYTES_SENT,
        errors: &catalog::PRODUCER_SEND_ERRORS,
        durations: &catalog::PRODUCER_SEND_DURATION,
    },
    Source {
        activity: "write",
        records: &catalog::AGENT_RECORDS_WRITTEN,
        bytes: &catalog::AGENT_BYTES_WRITTEN,
        errors: &catalog::AGENT_WRITE_ERRORS,
        durations: &catalog::AGENT_WRITE_LATENCY,
    },
    Source {
        activity: "poll",
        records: &catalog::CONSUMER_RECORDS_CONSUMED,
        bytes: &catalog::CONSUMER_BYTES_CONSUMED,
        errors: &catalog::CONSUMER_POLL_ERRORS,
        durations: &catalog::CONSUMER_POLL_DURATION,
    },
];

/// What one process does with one topic: topic, instance, group.
type Who = (String, String, Option<String>);

/// Sums of one activity.
#[derive(Default)]
struct Sums {
    records: f64,
    bytes: f64,
    errors: f64,
    durations: Histogram,
}

impl View {
    /// From what was gained in so many seconds; only of instances whose id begins with `instance`.
    pub(crate) fn new(gained: &Snapshot, seconds: f64, instance: &str) -> View {
        let gained = &Chosen { gained, instance };
        let number = |metric| gained.gained.numbers(metric).map(|(_, number)| number).sum();
        View {
            seconds,
            activities: SOURCES.iter().flat_map(|source| activities(source, gained, seconds)).collect(),
            writes: writes(gained, seconds),
            groups: groups(gained),
            processes: number(&catalog::PROBE_PROCESSES),
            sites_refused: number(&catalog::PROBE_SITES_REFUSED),
        }
    }
}

/// The series of some instances.
struct Chosen<'a> {
    gained: &'a Snapshot,
    instance: &'a str,
}

type Labels = BTreeMap<String, String>;

impl Chosen<'_> {
    fn is_chosen(&self, labels: &Labels) -> bool {
        labels.get("instance_id").is_some_and(|id| id.starts_with(self.instance))
    }

    fn numbers(&self, metric: &Metric) -> impl Iterator<Item = (&Labels, f64)> {
        self.gained.numbers(metric).filter(|(labels, _)| self.is_chosen(labels))
    }

    fn histograms(&self, metric: &Metric) -> impl Iterator<Item = (&Labels, &Histogram)> {
        self.gained.histograms(metric).filter(|(labels, _)| self.is_chosen(labels))
    }

    /// A histogram of each instance, its other labels added up.
    fn by_instance(&self, metric: &Metric, wanted: impl Fn(&Labels) -> bool) -> BTreeMap<String, Histogram> {
        let mut sums = BTreeMap::<String, Histogram>::new();
        for (labels, histogram) in self.histograms(metric).filter(|(labels, _)| wanted(labels)) {
            sums.entry(label(labels, "instance_id")).or_default().add(histogram);
        }
        sums
    }
}

fn label(labels: &Labels, name: &str) -> String {
    printable(labels.get(name).map_or("", String::as_str))
}

fn activities(source: &Source, gained: &Chosen<'_>, seconds: f64) -> Vec<Activity> {
    let who = |labels: &Labels| -> Who {
        let group = labels.contains_key("group").then(|| label(labels, "group"));
        (label(labels, "topic"), label(labels, "instance_id"), group)
    };
    let mut sums = BTreeMap::<Who, Sums>::new();
    for (labels, number) in gained.numbers(source.records) {
        sums.entry(who(labels)).or_default().records += number;
    }
    for (labels, number) in gained.numbers(source.bytes) {
        sums.entry(who(labels)).or_default().bytes += number;
    }
    for (labels, number) in gained.numbers(source.errors) {
        sums.entry(who(labels)).or_default().errors += number;
    }
    for (labels, histogram) in gained.histograms(source.durations) {
        sums.entry(who(labels)).or_default().durations.add(histogram);
    }
    let activity = |((topic, instance_id, group), sums): (Who, Sums)| Activity {
        activity: source.activity,
        topic,
        instance_id,
        group,
        records_per_second: sums.records / seconds,
        bytes_per_second: sums.bytes / seconds,
        errors_per_second: sums.errors / seconds,
        durations: Quantiles {
            p50_seconds: sums.durations.quantile(0.5),
            p99_seconds: sums.durations.quantile(0.99),
            p999_seconds: sums.durations.quantile(0.999),
        },
    };
    sums.into_iter().map(activity).collect()
}

fn writes(gained: &Chosen<'_>, seconds: f64) -> Vec<WriteTime> {
    let any = |_: &Labels| true;
    let puts =
        gained.by_instance(&catalog::OBJECT_STORE_DURATION, |labels| label(labels, "operation") == "put");
    let commits = gained.by_instance(&catalog::AGENT_COMMIT_DURATION, any);
    let mean =
        |of: &BTreeMap<String, Histogram>, id: &str| of.get(id).and_then(Histogram::mean).unwrap_or(0.0);
    let writes = gained.by_instance(&catalog::AGENT_WRITE_LATENCY, any).into_iter();
    let of_instance = |(instance_id, writes): (String, Histogram)| {
        let mean_seconds = writes.mean()?;
        // Each batch waits for one put and one commit. Those of a flush with many batches count once here: the parts are
        // of the mean flush, and can be more than the mean batch took.
        let object_store_seconds = mean(&puts, &instance_id).min(mean_seconds);
        let commit_seconds = mean(&commits, &instance_id).min(mean_seconds - object_store_seconds);
        Some(WriteTime {
            batches_per_second: writes.count() as f64 / seconds,
            mean_seconds,
            waiting_seconds: mean_seconds - object_store_seconds - commit_seconds,
            object_store_seconds,
            commit_seconds,
            instance_id,
        })
    };
    writes.filter_map(of_instance).collect()
}

/// The agents tell of every group; where none is observed its consumers do.
fn groups(gained: &Chosen<'_>) -> Vec<Group> {
    let mut lags = BTreeMap::<(String, String), (f64, f64)>::new();
    let mut take = |records: &Metric, seconds: &Metric| {
        let who = |labels: &Labels| (label(labels, "group"), label(labels, "topic"));
        let mut found = BTreeMap::<_, (f64, f64)>::new();
        for (labels, number) in gained.numbers(records) {
            found.entry(who(labels)).or_default().0 += number;
        }
        for (labels, number) in gained.numbers(seconds) {
            let lag = &mut found.entry(who(labels)).or_default().1;
            *lag = lag.max(number);
        }
        for (who, lag) in found {
            lags.entry(who).or_insert(lag);
        }
    };
    take(&catalog::GROUP_LAG_RECORDS, &catalog::GROUP_LAG_SECONDS);
    take(&catalog::CONSUMER_LAG_RECORDS, &catalog::CONSUMER_LAG_SECONDS);
    let group =
        |((group, topic), (lag_records, lag_seconds))| Group { group, topic, lag_records, lag_seconds };
    lags.into_iter().map(group).collect()
}

impl Activity {
    /// Its cells, as [`HEADINGS`] names them.
    pub(crate) fn cells(&self) -> [String; HEADINGS.len()] {
        let who = self.group.as_ref().map(|group| format!("{} ({group})", self.instance_id));
        [
            self.activity.to_owned(),
            self.topic.clone(),
            who.unwrap_or_else(|| self.instance_id.clone()),
            format!("{:.0}", self.records_per_second),
            format!("{:.2}", self.bytes_per_second / 1e6),
            duration(self.durations.p50_seconds),
            duration(self.durations.p99_seconds),
            duration(self.durations.p999_seconds),
            format!("{:.1}", self.errors_per_second),
        ]
    }
}

/// What is said of each activity.
pub(crate) const HEADINGS: [&str; 9] =
    ["", "topic", "instance", "records/s", "MB/s", "p50", "p99", "p99.9", "errors/s"];
/// The first column that holds numbers.
pub(crate) const NUMBERS: usize = 3;

/// Three digits and a unit.
pub(crate) fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    let (number, unit) = match seconds {
        _ if seconds < 1e-3 => (seconds * 1e6, "us"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {unit}")
}

/// Plain text, for what is no terminal.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.activities.iter().map(Activity::cells).collect();
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
        };
        let widths: [usize; HEADINGS.len()] = std::array::from_fn(width);
        let headings = HEADINGS.map(str::to_owned);
        for row in [&headings].into_iter().chain(&rows) {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ if column < NUMBERS => write!(f, "  {cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        for write in &self.writes {
            let part = |seconds: f64| duration(Some(seconds));
            writeln!(
                f,
                "a batch takes {} in {}: waiting {}, object store {}, commit {}",
                part(write.mean_seconds),
                write.instance_id,
                part(write.waiting_seconds),
                part(write.object_store_seconds),
                part(write.commit_seconds)
            )?;
        }
        for Group { group, topic, lag_records, lag_seconds } in &self.groups {
            writeln!(f, "group {group} lags {lag_records:.0} records, {lag_seconds:.1} s behind {topic}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::protobuf::{self, MetricFamily};
    use prost::Message;

    fn family(metric: &Metric, series: Vec<(&[&str], protobuf::Metric)>) -> Vec<u8> {
        let labelled = |(values, mut message): (&[&str], protobuf::Metric)| {
            let label = |(label, value): (&streamhouse_metrics::Label, &&str)| protobuf::LabelPair {
                name: label.name().to_owned(),
                value: (*value).to_owned(),
            };
            message.label = metric.labels.iter().zip(values).map(label).collect();
            message
        };
        let metric_messages = series.into_iter().map(labelled).collect();
        let family =
            MetricFamily { name: metric.name.to_owned(), metric: metric_messages, ..MetricFamily::default() };
        family.encode_length_delimited_to_vec()
    }

    fn counter(value: f64) -> protobuf::Metric {
        protobuf::Metric {
            counter: Some(protobuf::Counter { value, ..protobuf::Counter::default() }),
            ..protobuf::Metric::default()
        }
    }

    fn gauge(value: f64) -> protobuf::Metric {
        protobuf::Metric { gauge: Some(protobuf::Gauge { value }), ..protobuf::Metric::default() }
    }

    /// So many values that are all `2^(index / 8)`.
    fn histogram(index: i32, count: i64) -> protobuf::Metric {
        let histogram = protobuf::Histogram {
            sample_sum: (f64::from(index) / 8.0).exp2() * count as f64,
            schema: 3,
            positive_span: vec![protobuf::Span { offset: index, length: 1 }],
            positive_delta: vec![count],
            ..protobuf::Histogram::default()
        };
        protobuf::Metric { histogram: Some(histogram), ..protobuf::Metric::default() }
    }

    fn page() -> Snapshot {
        let page = [
            family(
                &catalog::AGENT_RECORDS_WRITTEN,
                vec![
                    (&["a-1", "orders", "0"], counter(30.0)),
                    (&["a-1", "orders", "1"], counter(10.0)),
                    (&["b-1", "orders", "0"], counter(999.0)),
                ],
            ),
            family(&catalog::AGENT_WRITE_LATENCY, vec![(&["a-1", "orders"], histogram(-8, 4))]),
            family(
                &catalog::OBJECT_STORE_DURATION,
                vec![(&["a-1", "put"], histogram(-16, 2)), (&["a-1", "get"], histogram(80, 2))],
            ),
            family(&catalog::AGENT_COMMIT_DURATION, vec![(&["a-1"], histogram(-24, 2))]),
            family(
                &catalog::GROUP_LAG_RECORDS,
                vec![(&["a-1", "g", "orders", "0"], gauge(5.0)), (&["a-1", "g", "orders", "1"], gauge(7.0))],
            ),
            family(
                &catalog::GROUP_LAG_SECONDS,
                vec![(&["a-1", "g", "orders", "0"], gauge(2.0)), (&["a-1", "g", "orders", "1"], gauge(3.0))],
            ),
            family(&catalog::CONSUMER_LAG_RECORDS, vec![(&["a-c", "g", "orders", "0"], gauge(100.0))]),
        ];
        Snapshot::parse(&page.concat()).expect("a page")
    }

    #[test]
    fn partitions_add_up_and_other_instances_are_left_out() {
        let view = View::new(&page(), 2.0, "a-");
        let [write] = &view.activities[..] else { panic!("{view:?}") };
        assert_eq!((write.activity, &*write.topic, &*write.instance_id), ("write", "orders", "a-1"));
        assert_eq!(write.records_per_second, 20.0);
        let p50 = write.durations.p50_seconds.expect("four batches");
        assert!((0.45..=0.5).contains(&p50), "{p50}");
        assert_eq!(View::new(&page(), 2.0, "").activities.len(), 2);
    }

    #[test]
    fn the_time_of_a_write_is_divided() {
        let view = View::new(&page(), 2.0, "a-");
        let [write] = &view.writes[..] else { panic!("{view:?}") };
        assert_eq!(
            (write.mean_seconds, write.object_store_seconds, write.commit_seconds),
            (0.5, 0.25, 0.125)
        );
        assert_eq!((write.waiting_seconds, write.batches_per_second), (0.125, 2.0));
    }

    #[test]
    fn a_groups_lag_is_the_agents_to_tell() {
        let view = View::new(&page(), 2.0, "a-");
        let [group] = &view.groups[..] else { panic!("{view:?}") };
        assert_eq!((group.lag_records, group.lag_seconds), (12.0, 3.0));
    }

    #[test]
    fn text_stands_in_columns() {
        let text = View::new(&page(), 2.0, "a-").to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("errors/s") && lines[1].ends_with("0.0"), "{text}");
        assert_eq!(
            lines[0].find("records/s").map(|at| at + 9),
            lines[1].find(" 20 ").map(|at| at + 3),
            "{text}"
        );
        assert_eq!(
            lines[2],
            "a batch takes 500 ms in a-1: waiting 125 ms, object store 250 ms, commit 125 ms"
        );
        assert_eq!(lines[3], "group g lags 12 records, 3.0 s behind orders");
    }

    #[test]
    fn durations_have_three_digits() {
        let shown = [0.0, 1.234e-6, 0.0456, 0.999, 12.3].map(|seconds| duration(Some(seconds)));
        assert_eq!(shown, ["0.00 us", "1.23 us", "45.6 ms", "999 ms", "12.3 s"]);
        assert_eq!(duration(None), "-");
    }
}
