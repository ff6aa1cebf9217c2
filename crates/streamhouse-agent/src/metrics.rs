//! What the agent counts for itself and serves at `/metrics`: nothing without the feature `metrics`, when the probe does.

use streamhouse_hooks::Instance;
#[cfg(feature = "metrics")]
use {
    std::sync::Arc,
    streamhouse_metrics::encode::{self, Format},
    streamhouse_metrics::{ClassicBuckets, host::Host, recorder::Recorder},
};

/// The metrics of one agent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    recorder: Arc<Recorder>,
}

/// A media type and a page of it.
pub(crate) type Page = (&'static str, Vec<u8>);

#[cfg(feature = "metrics")]
impl Metrics {
    pub(crate) fn new() -> Metrics {
        Metrics { recorder: Arc::default() }
    }

    /// Has what happens to an instance counted.
    pub(crate) fn of(&self, instance: Instance) -> Instance {
        instance.recorded(Some(Arc::clone(&self.recorder)))
    }

    /// In the format that these `Accept` headers want most.
    pub(crate) fn page<'h>(&self, accept: impl IntoIterator<Item = &'h str>) -> Option<Page> {
        let mut families = self.recorder.families();
        Host::look().add_to(&mut families);
        let format = Format::negotiate(accept);
        Some((format.content_type(), encode::write(&families, format, ClassicBuckets::default())))
    }
}

#[cfg(not(feature = "metrics"))]
impl Metrics {
    pub(crate) fn new() -> Metrics {
        Metrics {}
    }

    pub(crate) fn of(&self, instance: Instance) -> Instance {
        instance
    }

    pub(crate) fn page<'h>(&self, _: impl IntoIterator<Item = &'h str>) -> Option<Page> {
        None
    }
}
