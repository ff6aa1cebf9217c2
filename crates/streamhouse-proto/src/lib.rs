//! The gRPC service between producers and agents, generated from `proto/streamhouse/v1/agent.proto`.
//!
//! `bytes` fields are [`bytes::Bytes`]: a batch that arrives is a slice of the receive buffer, not a copy.

mod codec;

/// Version 1 of the protocol.
pub mod v1 {
    #![expect(
        missing_docs,
        clippy::allow_attributes_without_reason,
        reason = "generated; the .proto file documents every item"
    )]
    tonic::include_proto!("streamhouse.v1");
}

#[cfg(test)]
mod tests {
    use super::v1::{ProduceBatch, ProduceRequest};
    use bytes::Bytes;
    use prost::Message;

    #[test]
    fn a_batch_that_arrives_is_a_slice_of_what_was_received() {
        let batch = ProduceBatch {
            topic: "orders".into(),
            partition: 3,
            batch: Bytes::from(vec![7; 5000]),
            record_bytes: 4000,
        };
        let received = Bytes::from(ProduceRequest { batches: vec![batch] }.encode_to_vec());
        let request = ProduceRequest::decode(received.clone()).unwrap();
        let batch = &request.batches[0].batch;
        assert_eq!(batch.len(), 5000);
        assert!(received.as_ptr_range().contains(&batch.as_ptr()), "it was copied");
    }
}
