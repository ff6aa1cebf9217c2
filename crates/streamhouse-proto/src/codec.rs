//! Messages, and how many parts one may have before it is decoded.

use prost::{Message, bytes::Buf, encoding};
use std::marker::PhantomData;
use streamhouse_core::limits::{METADATA_PARTS_MAX, REQUEST_BATCHES_MAX};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// The codec of `Agent`: batches of a request, results of an answer.
pub(crate) type AgentCodec<T, U> = BoundedCodec<T, U, REQUEST_BATCHES_MAX>;
/// The codec of `Metadata`.
pub(crate) type MetadataCodec<T, U> = BoundedCodec<T, U, METADATA_PARTS_MAX>;

/// Prost's codec, with a decoder that refuses a message of more than `PARTS_MAX` parts. A size limit is not enough, since a
/// part of two bytes takes a hundred times that decoded.
pub(crate) struct BoundedCodec<T, U, const PARTS_MAX: usize>(PhantomData<(T, U)>);

impl<T, U, const PARTS_MAX: usize> Default for BoundedCodec<T, U, PARTS_MAX> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U, const PARTS_MAX: usize> Codec for BoundedCodec<T, U, PARTS_MAX>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U, PARTS_MAX>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::default().decoder())
    }
}

/// The decoder of a [`BoundedCodec`].
pub(crate) struct BoundedDecoder<U, const PARTS_MAX: usize>(ProstDecoder<U>);

impl<U: Message + Default, const PARTS_MAX: usize> Decoder for BoundedDecoder<U, PARTS_MAX> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The buffer is one piece; were it not, parts that cannot be counted would be refused too.
        let whole = buffer.chunk();
        if whole.len() != buffer.remaining() || has_more_fields(whole, PARTS_MAX) {
            return Err(Status::invalid_argument(format!(
                "a message has more than {PARTS_MAX} parts; send them in several requests"
            )));
        }
        self.0.decode(buffer)
    }
}

/// Whether a message has more than `max` fields. One that is malformed has as many as can be read: the decoder refuses it
/// at that place.
fn has_more_fields(mut message: &[u8], max: usize) -> bool {
    let mut fields = 0;
    while message.has_remaining() {
        fields += 1;
        if fields > max {
            return true;
        }
        let skipped = encoding::decode_key(&mut message).and_then(|(tag, wire_type)| {
            encoding::skip_field(wire_type, tag, &mut message, encoding::DecodeContext::default())
        });
        if skipped.is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ProduceBatch, ProduceRequest};

    #[test]
    fn fields_are_counted_without_decoding_them() {
        let request = |batches| {
            let batch = ProduceBatch { topic: "orders".into(), partition: 300, ..ProduceBatch::default() };
            ProduceRequest { batches: vec![batch; batches] }.encode_to_vec()
        };
        assert!(!has_more_fields(&[], 0));
        assert!(!has_more_fields(&request(7), 7));
        assert!(has_more_fields(&request(8), 7));
        assert!(has_more_fields(
            &ProduceRequest { batches: vec![ProduceBatch::default(); 8] }.encode_to_vec(),
            7
        ));
    }

    #[test]
    fn what_is_malformed_is_left_to_the_decoder() {
        for malformed in [&[0x0a, 0x7f][..], &[0xff; 12], &[0x0b, 0x0a], &[0x08]] {
            assert!(!has_more_fields(malformed, 10));
            assert!(ProduceRequest::decode(malformed).is_err());
        }
    }
}
