//! What is written down: a line a fact, words divided by spaces. A last line without its end is one that was never
//! written whole: whoever wrote it was killed.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What a record says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    /// Who sent it.
    pub(crate) producer: u32,
    /// Counts this producer's records, over all partitions.
    pub(crate) sequence: u64,
}

/// How a record of a producer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is stored.
    Acknowledged { partition: u32, offset: u64, sequence: u64 },
    /// It may or may not be stored.
    Failed { partition: u32, sequence: u64 },
}

/// A record that a consumer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) identity: Identity,
}

impl Identity {
    /// A record's value: padded, so that batches have the size of real ones.
    pub(crate) fn value(self) -> Vec<u8> {
        format!("{:<100}", format!("{} {} ", self.producer, self.sequence)).into_bytes()
    }

    /// From a record's value.
    pub(crate) fn of(value: &[u8]) -> Result<Identity> {
        let text = std::str::from_utf8(value).context("a value that nobody sent")?;
        let [producer, sequence] = words(text.trim_end())?;
        Ok(Identity { producer: u32::try_from(producer)?, sequence })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Acknowledged { partition, offset, sequence } => {
                write!(f, "ack {partition} {offset} {sequence}")
            }
            Ended::Failed { partition, sequence } => write!(f, "fail {partition} {sequence}"),
        }
    }
}

impl FromStr for Ended {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Ended> {
        if let Some(rest) = line.strip_prefix("ack ") {
            let [partition, offset, sequence] = words(rest)?;
            Ok(Ended::Acknowledged { partition: u32::try_from(partition)?, offset, sequence })
        } else if let Some(rest) = line.strip_prefix("fail ") {
            let [partition, sequence] = words(rest)?;
            Ok(Ended::Failed { partition: u32::try_from(partition)?, sequence })
        } else {
            bail!("not a line: {line:?}")
        }
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Got { partition, offset, identity: Identity { producer, sequence } } = self;
        write!(f, "{partition} {offset} {producer} {sequence}")
    }
}

impl FromStr for Got {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Got> {
        let [partition, offset, producer, sequence] = words(line)?;
        let identity = Identity { producer: u32::try_from(producer)?, sequence };
        Ok(Got { partition: u32::try_from(partition)?, offset, identity })
    }
}

fn words<const N: usize>(line: &str) -> Result<[u64; N]> {
    let words: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
    let words = words.with_context(|| format!("not numbers: {line:?}"))?;
    words.try_into().map_err(|_| anyhow::anyhow!("not {N} numbers: {line:?}"))
}

/// The whole lines of every file whose name begins so, file by file.
pub(crate) fn read<T: FromStr<Err = anyhow::Error>>(
    dir: &Path,
    prefix: &str,
) -> Result<Vec<(String, Vec<T>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix(prefix) {
            let text = std::fs::read_to_string(entry.path())?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let lines = whole.lines().map(str::parse).collect::<Result<_>>();
            files.push((name.to_owned(), lines.with_context(|| entry.path().display().to_string())?));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let identity = Identity { producer: 2, sequence: 77 };
        assert_eq!(Identity::of(&identity.value()).unwrap(), identity);
        assert!(Identity::of(b"something else").is_err());
        let got = Got { partition: 3, offset: 4, identity };
        let ended = [
            Ended::Acknowledged { partition: 1, offset: 5, sequence: 6 },
            Ended::Failed { partition: 1, sequence: 7 },
        ];
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("consumer-a"), format!("{got}\n1 2")).unwrap();
        std::fs::write(dir.path().join("producer-1"), format!("{}\n{}\n", ended[0], ended[1])).unwrap();
        assert_eq!(read::<Got>(dir.path(), "consumer-").unwrap(), [("a".to_owned(), vec![got])]);
        assert_eq!(read::<Ended>(dir.path(), "producer-").unwrap(), [("1".to_owned(), ended.to_vec())]);
    }
}
