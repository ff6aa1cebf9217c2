//! The gRPC service between producers and agents, generated from `proto/streamhouse/v1/agent.proto`.
//!
//! `bytes` fields are [`bytes::Bytes`]: a batch that arrives is a slice of the receive buffer, not a copy.

/// Version 1 of the protocol.
pub mod v1 {
    #![expect(missing_docs, unreachable_pub, reason = "generated; the .proto file documents every item")]
    tonic::include_proto!("streamhouse.v1");
}
