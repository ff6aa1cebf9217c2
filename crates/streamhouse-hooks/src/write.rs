//! `write`: a batch of a produce request, in the agent, from received to durable and committed.

operation! {
    site: Write,
    name: "write",
    level: tracing::Level::DEBUG,
    /// A batch of a produce request that was committed or failed.
    event: Write,
    /// When the request was received.
    started,
    /// Tells whoever looks that a batch was committed or failed.
    hook: write,
}
