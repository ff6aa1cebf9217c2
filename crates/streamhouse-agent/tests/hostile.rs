//! Batches that somebody made to do harm: each is refused with a sentence or written as it is, and the agent serves on.

mod support;

use bytes::Bytes;
use streamhouse_core::ErrorKind;
use streamhouse_core::batch::BatchHeader;
use streamhouse_proto::v1::ProduceBatch;
use support::{Client, Log, batch, kind};

// Where a batch's fields are: Kafka's record batch v2.
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const RECORDS_AT: usize = 57;

/// A batch of which bytes were changed, with a checksum that fits again.
fn forged(changes: &[(usize, &[u8])]) -> ProduceBatch {
    let mut forged = batch(0, &["value"], None);
    let mut bytes = forged.batch.to_vec();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    let crc = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    forged.batch = bytes.into();
    forged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_header_claims_is_not_believed() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    assert_eq!(client.stored(forged(&[])).await, 0, "what is forged is as good as what is not");
    let two_to_the_31 = [(LAST_OFFSET_DELTA_AT, &i32::MAX.to_be_bytes()[..]), (RECORDS_AT, &[0x80, 0, 0, 0])];
    let many =
        [(LAST_OFFSET_DELTA_AT, &(i32::MAX - 1).to_be_bytes()[..]), (RECORDS_AT, &i32::MAX.to_be_bytes())];
    let none = [(LAST_OFFSET_DELTA_AT, &(-1i32).to_be_bytes()[..]), (RECORDS_AT, &[0; 4])];
    let unknown_compression = [(ATTRIBUTES_AT, &[0u8, 7][..])];
    for changes in [&two_to_the_31[..], &many, &none, &unknown_compression] {
        let result = client.one(forged(changes)).await;
        let kind = kind(&result).expect("it is refused");
        assert!(!kind.is_retryable() && !result.message.is_empty(), "{kind:?}: {}", result.message);
    }
    assert_eq!(client.stored(batch(0, &["x"], None)).await, 1);
    assert_eq!(log.values(0).await, ["value", "x"]);
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_found_wherever_it_is() {
    let log = Log::new(1).await;
    let agent = log.agent().await;
    let client = Client::connect(agent.grpc_address()).await;
    let good = batch(0, &["value"], None);
    let mut flipped = Vec::new();
    for bit in 0..good.batch.len() * 8 {
        let mut bytes = good.batch.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        flipped.push(ProduceBatch { batch: Bytes::from(bytes), ..good.clone() });
    }
    // What an agent sets is not under the checksum: a flip there is not one.
    flipped.retain(|flipped| BatchHeader::check(&flipped.batch).is_err());
    assert!(
        flipped.len() > (good.batch.len() - 8 - 4) * 8 - 1,
        "{} of {}",
        flipped.len(),
        good.batch.len() * 8
    );
    for result in client.produce(flipped).await {
        assert!(matches!(kind(&result), Some(ErrorKind::Corrupt | ErrorKind::Invalid)), "{}", result.message);
    }
    assert_eq!(client.stored(good).await, 0);
    agent.shutdown().await;
}
