//! A record as users see it.

use bytes::Bytes;

/// A named value beside a record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name; UTF-8.
    pub name: String,
    /// Value; any bytes.
    pub value: Bytes,
}

/// What a producer sends and a consumer gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Key; decides the partition when none is given.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Bytes,
    /// Headers, in order; names may repeat.
    pub headers: Vec<Header>,
}

impl Record {
    /// The record's bytes as every counter, limit and report of the log counts them: key, value, header names and
    /// header values, without framing and before compression.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers
    }
}
