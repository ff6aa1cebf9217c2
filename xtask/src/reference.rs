//! `docs/metrics.md`, which is made of the catalog and the alert rules; and whether rules and panels speak of metrics that
//! there are.

use crate::shell::root;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use streamhouse_metrics::{Kind, Metric, catalog};

/// What is written.
const REFERENCE: &str = "docs/metrics.md";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERT_CASES: &str = "deploy/prometheus/alerts_test.yml";
/// The tests that see metrics of the in-process plane move.
const METRIC_TESTS: &str = "tests/planes/tests/moved.rs";
const OBSERVABILITY: &str = "docs/observability.md";
/// Directories whose every word that begins as a metric has to be one.
const NAMING: [&str; 2] = ["deploy", "dashboards"];
/// Labels that Prometheus adds.
const ADDED_LABELS: [&str; 4] = ["job", "instance", "le", "__name__"];

/// Labels of the vectors in between, of Prometheus' own series, and of node_exporter's.
const OTHER_LABELS: [&str; 4] = ["of", "alertname", "severity", "mode"];
/// What a list of labels follows in PromQL.
const LISTS: [&str; 6] = ["by (", "on (", "without (", "ignoring (", "group_left (", "group_right ("];

/// The metrics of DESIGN's table: those that operators know.
const KNOWN: [&str; 22] = [
    "streamhouse_producer_records_sent_total",
    "streamhouse_producer_bytes_sent_total",
    "streamhouse_producer_send_duration_seconds",
    "streamhouse_producer_batch_flush_duration_seconds",
    "streamhouse_producer_batch_size_records",
    "streamhouse_producer_batch_size_bytes",
    "streamhouse_producer_send_errors_total",
    "streamhouse_producer_pending_records",
    "streamhouse_consumer_records_consumed_total",
    "streamhouse_consumer_bytes_consumed_total",
    "streamhouse_consumer_poll_duration_seconds",
    "streamhouse_consumer_lag_records",
    "streamhouse_consumer_lag_seconds",
    "streamhouse_consumer_last_committed_offset",
    "streamhouse_consumer_current_offset",
    "streamhouse_agent_active_partitions",
    "streamhouse_agent_lease_renewals_total",
    "streamhouse_agent_records_written_total",
    "streamhouse_agent_write_latency_seconds",
    "streamhouse_agent_active_connections",
    "streamhouse_agent_grpc_requests_total",
    "streamhouse_agent_grpc_request_duration_seconds",
];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// An alert; of a recording rule only the expression.
#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    #[serde(default)]
    expr: String,
    #[serde(default, rename = "for")]
    lasts: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Cases {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    promql_expr_test: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    #[serde(default)]
    exp_samples: Vec<ExpectedSample>,
}

#[derive(Deserialize)]
struct ExpectedSample {
    labels: String,
}

/// Writes the reference.
pub(crate) fn write() -> Result<()> {
    fs::write(root().join(REFERENCE), reference()?)?;
    println!("wrote {REFERENCE}");
    Ok(())
}

/// What does not agree.
pub(crate) fn problems() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    if fs::read_to_string(root().join(REFERENCE)).unwrap_or_default() != reference()? {
        problems
            .push(format!("{REFERENCE} is not what catalog and alerts say; run `cargo xtask tidy --write`"));
    }
    let guide = fs::read_to_string(root().join(OBSERVABILITY)).unwrap_or_default();
    for alert in alerts()? {
        let name = alert.alert.as_deref().unwrap_or_default();
        for annotation in ["summary", "description", "runbook"] {
            if !alert.annotations.contains_key(annotation) {
                problems.push(format!("{ALERTS}: {name} has no {annotation}"));
            }
        }
        if !alert.labels.contains_key("severity") {
            problems.push(format!("{ALERTS}: {name} has no severity"));
        }
        if !guide.contains(&format!("`{name}`")) {
            problems.push(format!("{OBSERVABILITY} says nothing of the alert {name}"));
        }
    }
    for directory in NAMING {
        for file in files(&root().join(directory)) {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            let found = misnamed(&text).into_iter().chain(unknown_labels(&text));
            problems.extend(found.map(|problem| format!("{shown}: {problem}")));
        }
    }
    Ok(problems)
}

fn alerts() -> Result<Vec<Rule>> {
    let text = fs::read_to_string(root().join(ALERTS)).context(ALERTS)?;
    let rules: Rules = serde_saphyr::from_str(&text).context(ALERTS)?;
    Ok(rules.groups.into_iter().flat_map(|group| group.rules).filter(|rule| rule.alert.is_some()).collect())
}

/// Which metric a series belongs to, if any: a histogram has three names besides its own.
fn metric_of(series: &str) -> Option<&'static Metric> {
    catalog::ALL.iter().copied().find(|metric| {
        let rest = series.strip_prefix(metric.name);
        match metric.kind {
            Kind::Histogram => rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest)),
            Kind::Counter | Kind::Gauge => rest == Some(""),
        }
    })
}

/// Words that begin as a metric and are none, and labels that a metric does not have.
fn misnamed(text: &str) -> BTreeSet<String> {
    let mut problems = BTreeSet::new();
    let is_part = |character: char| character.is_ascii_lowercase() || character == '_';
    for (at, _) in text.match_indices("streamhouse_") {
        if text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let Some(metric) = metric_of(name) else {
            problems.insert(format!("there is no metric {name}"));
            continue;
        };
        let matchers =
            behind.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        for label in labels(matchers) {
            let has = metric.labels.iter().any(|known| known.name() == label);
            if !has && !ADDED_LABELS.contains(&label) {
                problems.insert(format!("{name} has no label {label}"));
            }
        }
    }
    problems
}

/// Labels that vectors are aggregated or matched by, or that a message quotes, and that no metric has.
fn unknown_labels(text: &str) -> BTreeSet<String> {
    let listed = LISTS.iter().flat_map(|list| {
        let inside = text.match_indices(list).filter(|(at, _)| text[..*at].ends_with([' ', '\n']));
        inside.filter_map(|(at, _)| Some(text[at + list.len()..].split_once(')')?.0))
    });
    let quoted = text.match_indices("$labels.").filter_map(|(at, quote)| {
        text[at + quote.len()..]
            .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
            .next()
    });
    let names = listed.flat_map(|list| list.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let is_known = |name: &str| {
        ADDED_LABELS.contains(&name)
            || OTHER_LABELS.contains(&name)
            || catalog::ALL.iter().flat_map(|metric| metric.labels).any(|label| label.name() == name)
    };
    names
        .chain(quoted)
        .filter(|name| !is_known(name))
        .map(|name| format!("no metric has a label {name}"))
        .collect()
}

/// The names before each `=`, `!=`, `=~` and `!~` of a list of matchers.
fn labels(matchers: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = matchers;
    while let Some((name, tail)) = rest.split_once(['=', '!']) {
        names.push(name.trim().trim_start_matches(',').trim());
        let mut quoted = tail.splitn(3, '"');
        rest = quoted.nth(2).unwrap_or_default();
    }
    names
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn reference() -> Result<String> {
    let mut text = String::from(
        "# Metrics and alerts\n\n\
         Made by `cargo xtask tidy --write` of the catalog (`crates/streamhouse-metrics/src/catalog.rs`), which is the one \
         home of every metric, and of the alert rules. [observability.md](observability.md) says how to use them.\n\n\
         A metric has the same name, type, unit and labels whoever serves it: the probe, or a process that serves its own. \
         Histograms have base-2 exponential buckets, eight to an octave, of which classic formats show two; a counter's or \
         histogram's series is there once anything was counted.\n\n\
         ## The twenty-two that operators know\n\n\
         Each is seen to move, under its exact name, by a test of the process's own plane; `tests/planes/tests/agree.rs` sees \
         that the probe says the same of the same workload, every count, sum and bucket.\n\n\
         | metric | proved by |\n| --- | --- |\n",
    );
    let tests = fs::read_to_string(root().join(METRIC_TESTS)).context(METRIC_TESTS)?;
    for name in KNOWN {
        let proof =
            test_of(&tests, name).with_context(|| format!("no test in {METRIC_TESTS} names {name}"))?;
        writeln!(text, "| `{name}` | `{METRIC_TESTS}`: `{proof}` |")?;
    }
    text.push_str(
        "\n## All metrics\n\n| metric | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n",
    );
    for Metric { name, kind, unit, help, labels } in catalog::ALL.iter().copied() {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{}`", label.name())).collect();
        writeln!(text, "| `{name}` | {} | {} | {} | {help} |", kind.name(), unit.name(), labels.join(", "))?;
    }
    text.push_str(
        "\n## Alerts\n\n\
         Of `deploy/prometheus/alerts.yml`. The cases are those of `alerts_test.yml` beside it in which the alert fires; each \
         check there lists all alerts that fire at its time, so that every other alert is seen not to. \
         `tests/tests/system/alerts.rs` causes five of them for real.\n\n\
         | alert | severity | for | proved by |\n| --- | --- | --- | --- |\n",
    );
    let cases = fs::read_to_string(root().join(ALERT_CASES)).context(ALERT_CASES)?;
    let cases: Cases = serde_saphyr::from_str(&cases).context(ALERT_CASES)?;
    for alert in alerts()? {
        let name = alert.alert.as_deref().unwrap_or_default();
        let mention = format!("alertname=\"{name}\"");
        let fires = |case: &&Case| {
            let mut expected = case.promql_expr_test.iter().flat_map(|check| &check.exp_samples);
            expected.any(|sample| sample.labels.contains(&mention))
        };
        let proofs: Vec<_> = cases.tests.iter().filter(fires).map(|case| case.name.as_str()).collect();
        let severity = alert.labels.get("severity").map_or("", String::as_str);
        anyhow::ensure!(!proofs.is_empty(), "no case in {ALERT_CASES} has {name} fire");
        let lasts = if alert.lasts.is_empty() { "at once" } else { &alert.lasts };
        writeln!(text, "| `{name}` | {severity} | {lasts} | {} |", proofs.join("; "))?;
    }
    text.push_str("\n### Expressions\n");
    for alert in alerts()? {
        let name = alert.alert.as_deref().unwrap_or_default();
        write!(text, "\n`{name}`\n\n```promql\n{}\n```\n", alert.expr.trim())?;
    }
    Ok(text)
}

/// The test whose body names the metric first.
fn test_of<'t>(tests: &'t str, metric: &str) -> Option<&'t str> {
    let found = ["", "_count"].iter().find_map(|end| tests.find(&format!("\"{metric}{end}\"")));
    let before = &tests[..found?];
    let (_, name) = before.rsplit_once("\nasync fn ")?;
    name.split('(').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_that_do_not_exist_are_found() {
        let good = "rate(streamhouse_producer_send_errors_total{status!~\"a,b=c|d\", topic=\"x\", job=\"y\"}[5m]) \
                    streamhouse_producer_send_duration_seconds_bucket streamhouse:topic_records:rate";
        assert_eq!(misnamed(good), BTreeSet::new());
        let bad = "streamhouse_producer_sent_total + streamhouse_agent_ready{topic=\"x\"} + streamhouse_agent_ready_bucket";
        assert_eq!(misnamed(bad).len(), 3);
    }

    #[test]
    fn labels_that_no_metric_has_are_found() {
        let good = "sum by (topic, le) (x) and on (instance) y unless on () z # by the way (this) \"{{ $labels.topic }}s\"";
        assert_eq!(unknown_labels(good), BTreeSet::new());
        let bad = "sum by (topic, lee) (x) * on (partitions) y \"{{ $labels.tpoic }}\"";
        assert_eq!(unknown_labels(bad).len(), 3);
    }
}
