//! A real Prometheus scrapes each format, and what it answers agrees with what was observed.

mod observed;
mod server;
mod target;

use std::time::{Duration, Instant};

use observed::Observed;
use server::Prometheus;
use streamhouse_probe::encode::Format;
use target::Target;

const WRITE: &str = "streamhouse_agent_write_latency_seconds";
/// Neighbouring native bounds are this far from each other, and classic ones at two an octave.
const NATIVE_ERROR: f64 = 1.090_507_732_665_257_7;
const CLASSIC_ERROR: f64 = std::f64::consts::SQRT_2;

/// The server; none where the program is missing, which is said.
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn start(features: &[&str], targets: &[(&str, &Target)]) -> Option<Prometheus> {
    let prometheus = Prometheus::start(features, targets);
    if prometheus.is_none() {
        let required = std::env::var_os("STREAMHOUSE_REQUIRE_BPF").is_some();
        assert!(!required, "prometheus is missing (cargo xtask setup)");
        eprintln!("skipped: prometheus is not installed (cargo xtask setup)");
    }
    prometheus
}

/// Waits until a query answers one number.
fn ask(prometheus: &Prometheus, query: &str) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = prometheus.query(query);
        if let [value] = answer.as_slice() {
            return *value;
        }
        assert!(Instant::now() < deadline, "{query} gives {answer:?}; {}", prometheus.said());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `buckets` is what quantiles are asked of, `error` how far they may be off.
fn agrees(prometheus: &Prometheus, job: &str, observed: &Observed, buckets: &str, error: f64) {
    // A scrape that a busy machine is too slow for comes again.
    ask(prometheus, &format!("up{{job=\"{job}\"}} == 1"));
    for quantile in [0.5, 0.9, 0.99, 0.999] {
        let found = ask(prometheus, &format!("histogram_quantile({quantile}, {buckets}{{job=\"{job}\"}})"));
        let ratio = found / observed.quantile(quantile);
        assert!((1.0 / error..=error).contains(&ratio), "{job}: quantile {quantile} is {found}, {ratio} off");
    }
    let records = format!("streamhouse_agent_records_written_total{{job=\"{job}\"}}");
    assert_eq!(ask(prometheus, &records), observed.records as f64);
}

fn classic_agrees(prometheus: &Prometheus, job: &str, observed: &Observed) {
    agrees(prometheus, job, observed, &format!("{WRITE}_bucket"), CLASSIC_ERROR);
    let of = |suffix: &str| ask(prometheus, &format!("{WRITE}_{suffix}{{job=\"{job}\"}}"));
    assert_eq!(of("count"), observed.count() as f64);
    assert!((of("sum") / observed.sum_seconds() - 1.0).abs() < 1e-12);
}

#[test]
fn without_native_histograms_it_takes_openmetrics_and_text() {
    let observed = Observed::spread();
    let (asked, text) = (Target::start(&observed, None), Target::start(&observed, Some(Format::Text)));
    let Some(prometheus) = start(&[], &[("asked", &asked), ("text", &text)]) else { return };
    classic_agrees(&prometheus, "asked", &observed);
    classic_agrees(&prometheus, "text", &observed);
    assert_eq!(asked.answered(), [Format::OpenMetrics]);
    let created = ask(&prometheus, &format!("{WRITE}_created{{job=\"asked\"}}"));
    assert!(created > 1.6e9, "{created}");
}

#[test]
fn with_native_histograms_it_takes_protobuf() {
    let observed = Observed::spread();
    let (asked, text) = (Target::start(&observed, None), Target::start(&observed, Some(Format::Text)));
    let open = Target::start(&observed, Some(Format::OpenMetrics));
    let targets = [("asked", &asked), ("text", &text), ("openmetrics", &open)];
    let Some(prometheus) = start(&["native-histograms"], &targets) else { return };
    agrees(&prometheus, "asked", &observed, WRITE, NATIVE_ERROR);
    assert_eq!(asked.answered(), [Format::Protobuf]);
    let of = |function: &str| ask(&prometheus, &format!("{function}({WRITE}{{job=\"asked\"}})"));
    assert_eq!(of("histogram_count"), observed.count() as f64);
    assert!((of("histogram_sum") / observed.sum_seconds() - 1.0).abs() < 1e-12);
    // What the native buckets say of a whole range is exact where the range ends at bounds.
    let below = ask(&prometheus, &format!("histogram_fraction(0, 1, {WRITE}{{job=\"asked\"}})"));
    assert!((below - observed.fraction_below_second()).abs() < 1e-9, "{below}");
    classic_agrees(&prometheus, "text", &observed);
    classic_agrees(&prometheus, "openmetrics", &observed);
}
