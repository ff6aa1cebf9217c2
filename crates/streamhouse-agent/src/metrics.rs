//! What the agent counts for itself and serves at `/metrics`: nothing without the feature `metrics`, when the probe does.

use streamhouse_hooks::Instance;
#[cfg(feature = "metrics")]
use {
    prometheus_client::{encoding::text, registry::Registry},
    std::sync::Arc,
    streamhouse_metrics::{Families, host::Host, recorder},
};

/// The media type of [`Metrics::page`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one agent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    recorder: Arc<recorder::Recorder>,
    #[cfg(feature = "metrics")]
    registry: Arc<Registry>,
}

#[cfg(feature = "metrics")]
impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::default();
        let recorder = Arc::new(recorder::Recorder::default());
        recorder.register(&mut registry);
        recorder::register(&mut registry, || {
            let mut families = Families::default();
            Host::look().add_to(&mut families);
            families
        });
        Metrics { recorder, registry: Arc::new(registry) }
    }

    /// Has what happens to an instance counted.
    pub(crate) fn of(&self, instance: Instance) -> Instance {
        instance.recorded(Some(Arc::clone(&self.recorder)))
    }

    /// OpenMetrics text.
    pub(crate) fn page(&self) -> Option<String> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).ok()?;
        Some(page)
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

    pub(crate) fn page(&self) -> Option<String> {
        None
    }
}
