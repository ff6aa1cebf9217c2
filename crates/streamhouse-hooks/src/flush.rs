//! `flush`: a batch of a produce request, in the producer, from sealed to acknowledged.

operation! {
    site: Flush,
    name: "flush",
    level: tracing::Level::DEBUG,
    /// A batch of a produce request that was acknowledged or failed.
    event: Flush,
    /// When the batch was sealed.
    started,
    /// Tells whoever looks that a batch of a produce request ended.
    hook: flush,
}
