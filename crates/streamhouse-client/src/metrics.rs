//! Producers and consumers whose metrics the application serves itself.

use prometheus_client::registry::Registry;
use std::sync::Arc;
use streamhouse_metrics::recorder::Recorder;

/// Declares a handle on what clients of one kind count.
macro_rules! metrics {
    ($(#[$doc:meta])* $name:ident, $clients:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name {
            recorder: Arc<Recorder>,
        }

        impl $name {
            #[doc = concat!("Has the registry serve what ", $clients, " count, under the names of the catalog: the registry must add no prefix. Once for each registry, however many there are.")]
            pub fn new(registry: &mut Registry) -> Self {
                let recorder = Arc::new(Recorder::default());
                recorder.register(registry);
                Self { recorder }
            }

            pub(crate) fn recorder(&self) -> Arc<Recorder> {
                Arc::clone(&self.recorder)
            }
        }
    };
}

metrics! {
    /// What producers count, for the registry of an application that serves its metrics itself.
    ///
    /// The probe then leaves out all that the process does, so that nothing is counted twice: give metrics to every producer
    /// and consumer in it, or to none.
    ///
    /// ```no_run
    /// use prometheus_client::registry::Registry;
    /// use std::sync::Arc;
    /// use streamhouse_client::{Producer, ProducerMetrics};
    ///
    /// # async fn example() -> streamhouse_client::Result<()> {
    /// let mut registry = Registry::default();
    /// let metrics = Arc::new(ProducerMetrics::new(&mut registry));
    /// let producer = Producer::builder().bootstrap("localhost:50051").metrics(Some(metrics)).build().await?;
    ///
    /// // Wherever the application serves its metrics:
    /// let mut page = String::new();
    /// prometheus_client::encoding::text::encode(&mut page, &registry).expect("a string takes everything");
    /// # Ok(())
    /// # }
    /// ```
    ProducerMetrics, "producers"
}

metrics! {
    /// What consumers count, for the registry of an application that serves its metrics itself. As
    /// [`ProducerMetrics`] otherwise.
    ConsumerMetrics, "consumers"
}
