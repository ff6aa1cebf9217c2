//! Where a producer's records come from.

use crate::generator::Generator;
use anyhow::{Context, Result, bail, ensure};
use std::io::SeekFrom;
use std::path::Path;
use streamhouse_core::limits::RECORD_BYTES_MAX;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, Stdin, stdin};

/// Read at once from a file or standard input.
const READ_BYTES: usize = 256 << 10;

/// Lines or made-up records.
#[derive(Debug)]
pub(crate) enum Source {
    /// Made up, without end.
    Generator(Box<Generator>),
    /// A file's lines.
    File(FileLines),
    /// Standard input's lines.
    Stdin(Lines<BufReader<Stdin>>),
}

/// A file's lines, over and over if asked.
#[derive(Debug)]
pub(crate) struct FileLines {
    lines: Lines<BufReader<File>>,
    repeat: bool,
}

/// A key and a value, good until the next one is asked for.
pub(crate) type KeyValue<'a> = (Option<&'a [u8]>, &'a [u8]);

impl Source {
    /// The lines of a file.
    pub(crate) async fn file(path: &Path, separator: Option<&str>, repeat: bool) -> Result<Source> {
        let file = File::open(path).await.with_context(|| format!("{} cannot be read", path.display()))?;
        let metadata = file.metadata().await.with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(!metadata.is_dir(), "{} cannot be read: it is a directory; give a file", path.display());
        let length = metadata.len();
        ensure!(!repeat || length > 0, "{} is empty; there is nothing to repeat", path.display());
        let name = path.display().to_string();
        let lines = Lines::new(name, BufReader::with_capacity(READ_BYTES, file), separator);
        Ok(Source::File(FileLines { lines, repeat }))
    }

    /// The lines of standard input.
    pub(crate) fn stdin(separator: Option<&str>) -> Source {
        let reader = BufReader::with_capacity(READ_BYTES, stdin());
        Source::Stdin(Lines::new("standard input".to_owned(), reader, separator))
    }

    /// The next record; `None` at the end.
    ///
    /// Not to be called again after its future was dropped unfinished: part of a line would be lost.
    pub(crate) async fn next(&mut self) -> Result<Option<KeyValue<'_>>> {
        match self {
            Source::Generator(generator) => Ok(Some(generator.make())),
            Source::File(file) => file.next().await,
            Source::Stdin(lines) => {
                let more = lines.read().await?;
                Ok(more.then(|| lines.split()))
            }
        }
    }
}

impl FileLines {
    async fn next(&mut self) -> Result<Option<KeyValue<'_>>> {
        let mut more = self.lines.read().await?;
        if !more && self.repeat {
            let sought = self.lines.reader.seek(SeekFrom::Start(0)).await;
            sought.with_context(|| format!("{} cannot be read", self.lines.name))?;
            self.lines.number = 0;
            more = self.lines.read().await?;
        }
        Ok(more.then(|| self.lines.split()))
    }
}

/// Lines, each a value, or a key and a value around the first separator.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    /// What is read, for messages.
    name: String,
    reader: R,
    separator: Option<Vec<u8>>,
    line: Vec<u8>,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    fn new(name: String, reader: R, separator: Option<&str>) -> Lines<R> {
        Lines {
            name,
            reader,
            separator: separator.map(|text| text.as_bytes().to_vec()),
            line: Vec::new(),
            number: 0,
        }
    }

    /// Reads the next line into the buffer, without its line feed; false at the end.
    async fn read(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        let most = RECORD_BYTES_MAX + self.separator.as_ref().map_or(0, Vec::len);
        let mut limited = (&mut self.reader).take(most as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.line).await;
        if read.with_context(|| format!("{} cannot be read", self.name))? == 0 {
            return Ok(false);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > most {
            bail!(
                "line {} of {} is longer than {RECORD_BYTES_MAX} bytes, the most a record may have; split it",
                self.number,
                self.name
            );
        }
        Ok(true)
    }

    fn split(&self) -> KeyValue<'_> {
        let line = &self.line[..];
        let Some(separator) = self.separator.as_deref() else { return (None, line) };
        match line.windows(separator.len()).position(|window| window == separator) {
            Some(at) => (Some(&line[..at]), &line[at + separator.len()..]),
            None => (None, line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], separator: Option<&str>) -> Result<Vec<(Option<Vec<u8>>, Vec<u8>)>> {
        let mut lines = Lines::new("a text".to_owned(), text, separator);
        let mut found = Vec::new();
        while lines.read().await? {
            let (key, value) = lines.split();
            found.push((key.map(<[u8]>::to_vec), value.to_vec()));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn a_line_is_a_record() {
        let found = all(b"a\n\n\xff b\nlast", None).await.unwrap();
        let values: Vec<_> = found.iter().map(|(_, value)| &value[..]).collect();
        assert_eq!(values, [&b"a"[..], b"", b"\xff b", b"last"]);
    }

    #[tokio::test]
    async fn the_first_separator_ends_the_key() {
        let found = all(b"k::v::w\n::v\nplain\n", Some("::")).await.unwrap();
        let expected: [(Option<&[u8]>, &[u8]); 3] =
            [(Some(b"k"), b"v::w"), (Some(b""), b"v"), (None, b"plain")];
        assert_eq!(found.len(), expected.len());
        for ((key, value), (expected_key, expected_value)) in found.iter().zip(expected) {
            assert_eq!((key.as_deref(), &value[..]), (expected_key, expected_value));
        }
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_with_its_number() {
        let mut text = b"short\n".to_vec();
        text.extend(vec![b'x'; RECORD_BYTES_MAX]);
        assert_eq!(all(&text, None).await.unwrap().len(), 2);
        text.push(b'x');
        let message = all(&text, None).await.unwrap_err().to_string();
        assert!(message.starts_with("line 2 of a text is longer than"), "{message}");
    }

    #[tokio::test]
    async fn a_file_repeats() {
        let path = std::env::temp_dir().join(format!("streamhouse-source-{}", std::process::id()));
        std::fs::write(&path, "a\nb\n").unwrap();
        let mut source = Source::file(&path, None, true).await.unwrap();
        let mut values = Vec::new();
        for _ in 0..5 {
            values.extend_from_slice(source.next().await.unwrap().unwrap().1);
        }
        assert_eq!(values, b"ababa");
        std::fs::write(&path, "").unwrap();
        let message = Source::file(&path, None, true).await.unwrap_err().to_string();
        assert!(message.contains("nothing to repeat"), "{message}");
        std::fs::remove_file(&path).unwrap();
    }
}
