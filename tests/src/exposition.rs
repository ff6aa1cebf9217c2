//! Reads a Prometheus text page back.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// One line of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric name, with `_bucket`, `_sum` and `_count` as they stand.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Sample {
    /// A label's value, or the empty string.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A whole page.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// The samples in the order of the page.
    pub samples: Vec<Sample>,
}

impl Exposition {
    /// Parses text format 0.0.4.
    ///
    /// # Errors
    ///
    /// Names the first line that is not a sample.
    pub fn parse(page: &str) -> Result<Exposition> {
        let samples = page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| sample(line).with_context(|| format!("not a sample: {line}")))
            .collect::<Result<_>>()?;
        Ok(Exposition { samples })
    }

    /// The samples of a name whose labels include those given.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name && labels.iter().all(|(k, v)| sample.label(k) == *v))
    }

    /// The sum over those samples; 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // Not `sum()`: its neutral element is -0, which would be shown as such.
        self.select(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// Cumulative counts by upper bound (in the metric's unit, `+Inf` last), summed over those series.
    pub fn buckets(&self, histogram: &str, labels: &[(&str, &str)]) -> Vec<(f64, f64)> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.select(&name, labels) {
            let bound = sample.label("le").parse().unwrap_or(f64::INFINITY);
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }
}

fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        number => number.parse()?,
    };
    let Some((name, rest)) = series.split_once('{') else {
        return Ok(Sample { name: series.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut rest = rest.strip_suffix('}').context("no closing brace")?;
    let mut labels = BTreeMap::new();
    while !rest.is_empty() {
        let (label, tail) = rest.split_once("=\"").context("no label value")?;
        let (text, tail) = quoted(tail)?;
        labels.insert(label.to_owned(), text);
        rest = tail.strip_prefix(',').unwrap_or(tail);
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows the quote.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((out, &text[at + 1..])),
            '\\' => match chars.next().context("escape without a character")?.1 {
                'n' => out.push('\n'),
                other => {
                    ensure!(matches!(other, '"' | '\\'), "unknown escape");
                    out.push(other);
                }
            },
            other => out.push(other),
        }
    }
    anyhow::bail!("no closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE h histogram\nh_bucket{t=\"a\",le=\"0.5\"} 1\nh_bucket{t=\"a\",le=\"1\"} 3\n\
                        h_bucket{t=\"a\",le=\"+Inf\"} 4\nc_total{t=\"q\\\"\\\\\\n\"} 7\nplain 1.5\n";

    #[test]
    fn reads_samples_labels_and_buckets() {
        let page = Exposition::parse(PAGE).unwrap();
        assert_eq!(page.sum("plain", &[]), 1.5);
        assert_eq!(page.sum("c_total", &[("t", "q\"\\\n")]), 7.0);
        assert_eq!(page.buckets("h", &[("t", "a")]), [(0.5, 1.0), (1.0, 3.0), (f64::INFINITY, 4.0)]);
        assert_eq!(page.buckets("h", &[("t", "b")]), []);
    }

    #[test]
    fn refuses_what_is_not_a_sample() {
        for line in ["name", "a{b=\"c} 1", "a{b=\"\\x\"} 1", "a one"] {
            assert!(Exposition::parse(line).is_err(), "{line}");
        }
    }
}
