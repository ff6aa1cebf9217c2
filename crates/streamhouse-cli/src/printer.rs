//! Prints consumed records: values, or one JSON object a line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, BufWriter, Stdout, Write};
use streamhouse_client::ConsumedRecord;
use streamhouse_core::Header;

/// Standard output and what goes there.
#[derive(Debug)]
pub(crate) struct Printer {
    out: BufWriter<Stdout>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Nothing,
    Json,
    Values { key_separator: Option<Vec<u8>> },
}

/// A record as one line of JSON. What is no UTF-8 is base64, and says so.
#[derive(Debug, Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    value: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderLine<'a>>,
}

#[derive(Debug, Serialize)]
struct HeaderLine<'a> {
    name: &'a str,
    value: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
}

impl Printer {
    /// Prints JSON, values, or nothing; `key_separator` puts each key before its value.
    pub(crate) fn new(json: bool, quiet: bool, key_separator: Option<&str>) -> Printer {
        let format = match (quiet, json) {
            (true, _) => Format::Nothing,
            (false, true) => Format::Json,
            (false, false) => Format::Values { key_separator: key_separator.map(|text| text.into()) },
        };
        Printer { out: BufWriter::with_capacity(64 << 10, io::stdout()), format }
    }

    /// Prints records and sees that they are out.
    pub(crate) fn print(&mut self, records: &[ConsumedRecord]) -> io::Result<()> {
        if matches!(self.format, Format::Nothing) {
            return Ok(());
        }
        for record in records {
            write_record(&mut self.out, &self.format, record)?;
        }
        self.out.flush()
    }
}

fn write_record(out: &mut impl Write, format: &Format, record: &ConsumedRecord) -> io::Result<()> {
    match format {
        Format::Nothing => return Ok(()),
        Format::Json => serde_json::to_writer(&mut *out, &line(record))?,
        Format::Values { key_separator } => {
            if let (Some(key), Some(separator)) = (&record.key, key_separator) {
                out.write_all(key)?;
                out.write_all(separator)?;
            }
            out.write_all(&record.value)?;
        }
    }
    out.write_all(b"\n")
}

fn line(record: &ConsumedRecord) -> Line<'_> {
    let (key, key_encoding) = record.key.as_deref().map(text).unzip();
    let (value, value_encoding) = text(&record.value);
    Line {
        topic: record.topic.as_str(),
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key,
        key_encoding: key_encoding.flatten(),
        value,
        value_encoding,
        headers: record.headers.iter().map(header_line).collect(),
    }
}

fn header_line(header: &Header) -> HeaderLine<'_> {
    let (value, value_encoding) = text(&header.value);
    HeaderLine { name: &header.name, value, value_encoding }
}

fn text(bytes: &[u8]) -> (Cow<'_, str>, Option<&'static str>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), None),
        Err(_) => (Cow::Owned(STANDARD.encode(bytes)), Some("base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamhouse_core::TopicName;

    fn printed(format: &Format, key: Option<&'static [u8]>, value: &'static [u8]) -> String {
        let record = ConsumedRecord {
            topic: TopicName::new("orders").unwrap(),
            partition: 3,
            offset: 42,
            timestamp_ms: 5,
            key: key.map(Into::into),
            value: value.into(),
            headers: vec![Header { name: "trace".to_owned(), value: (&b"\xfe"[..]).into() }],
        };
        let mut out = Vec::new();
        write_record(&mut out, format, &record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_marks_what_is_no_text() {
        let text: serde_json::Value =
            serde_json::from_str(&printed(&Format::Json, None, "grüße".as_bytes())).unwrap();
        assert_eq!(
            text,
            serde_json::json!({"topic": "orders", "partition": 3, "offset": 42, "timestamp_ms": 5, "key": null,
                "value": "grüße", "headers": [{"name": "trace", "value": "/g==", "value_encoding": "base64"}]})
        );
        let binary: serde_json::Value =
            serde_json::from_str(&printed(&Format::Json, Some(b"\xff"), b"\x80\x81")).unwrap();
        assert_eq!((&binary["key"], &binary["key_encoding"]), (&"/w==".into(), &"base64".into()));
        assert_eq!((&binary["value"], &binary["value_encoding"]), (&"gIE=".into(), &"base64".into()));
    }

    #[test]
    fn values_stand_alone_or_behind_their_keys() {
        let values = Format::Values { key_separator: None };
        assert_eq!(printed(&values, Some(b"k"), b"v"), "v\n");
        let keyed = Format::Values { key_separator: Some(b": ".to_vec()) };
        assert_eq!(printed(&keyed, Some(b"k"), b"v"), "k: v\n");
        assert_eq!(printed(&keyed, None, b"v"), "v\n");
        assert_eq!(printed(&Format::Nothing, None, b"v"), "");
    }
}
