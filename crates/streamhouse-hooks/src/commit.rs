//! `commit`: the metadata transaction that commits a flush, in the agent, from begin to committed.

operation! {
    site: Commit,
    name: "commit",
    level: tracing::Level::DEBUG,
    /// A metadata transaction that committed a flush, or failed to.
    event: Commit,
    /// When the transaction began.
    started,
    /// Tells whoever looks that a flush was committed or failed.
    hook: commit,
}
