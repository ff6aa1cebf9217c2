//! `poll`: a partition that returned records in one `Consumer::poll()`: fetch and decode, without idle waiting.

operation! {
    site: Poll,
    name: "poll",
    level: tracing::Level::TRACE,
    /// What one poll returned from one partition.
    event: Poll,
    /// When its fetch began.
    started,
    /// Tells whoever looks that a partition returned records.
    hook: poll,
}
