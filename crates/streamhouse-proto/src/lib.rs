//! The gRPC services between clients and agents, generated from `proto/streamhouse/v1`: `Agent` takes records in,
//! `Metadata` answers what clients need of the metadata store.
//!
//! [`convert`] turns the messages of `Metadata` into the store's types and back, [`status`] its errors.
//!
//! `bytes` fields are [`bytes::Bytes`]: a batch that arrives is a slice of the receive buffer, not a copy.

mod codec;
pub mod convert;
pub mod status;

/// Version 1 of the protocol.
pub mod v1 {
    #![expect(
        missing_docs,
        clippy::allow_attributes_without_reason,
        reason = "generated; the .proto files document every item"
    )]
    include!(concat!(env!("OUT_DIR"), "/agent/streamhouse.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/metadata/streamhouse.v1.rs"));
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
            traceparent: String::new(),
        };
        let received = Bytes::from(ProduceRequest { batches: vec![batch] }.encode_to_vec());
        let request = ProduceRequest::decode(received.clone()).unwrap();
        let batch = &request.batches[0].batch;
        assert_eq!(batch.len(), 5000);
        assert!(received.as_ptr_range().contains(&batch.as_ptr()), "it was copied");
    }
}
