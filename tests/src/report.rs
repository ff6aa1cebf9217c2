//! What the load generator recorded by itself: the ground truth.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// `streamhouse produce --report`.
#[derive(Clone, Debug, Deserialize)]
pub struct ProduceReport {
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of keys, values and headers of those records.
    pub bytes: u64,
    /// Records that failed.
    pub errors: u64,
    /// First send to last acknowledgement.
    pub seconds: f64,
    /// Acknowledged records by latency bucket.
    pub latency_buckets: BTreeMap<usize, u64>,
    /// Sum of those latencies.
    pub latency_sum_ns: u64,
}

/// `streamhouse consume --report`.
#[derive(Clone, Debug, Deserialize)]
pub struct ConsumeReport {
    /// Records that polls returned.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Polls that returned at least one record.
    pub polls: u64,
    /// First record to last record.
    pub seconds: f64,
}

impl ProduceReport {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it is not there or not a report.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }

    /// The upper bound in seconds of the bucket that holds quantile `q`; `None` when nothing was acknowledged.
    pub fn latency_quantile(&self, q: f64) -> Option<f64> {
        let mut below = 0;
        let mut buckets = self.latency_buckets.iter();
        let (index, _) = buckets.find(|(_, count)| {
            below += *count;
            below as f64 >= q * self.records as f64
        })?;
        Some(2f64.powf(*index as f64 / 8.0 - 20.0))
    }
}

impl ConsumeReport {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it is not there or not a report.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| format!("no report at {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not a report", path.display()))
}
