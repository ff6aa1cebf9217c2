//! What is shown: tables and sentences for people, JSON for machines.

use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use streamhouse_core::ErrorKind;

/// What went wrong when an error comes from there.
pub(crate) const STDOUT_FAILED: &str = "standard output cannot be written";

/// How results are shown on standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// As JSON.
    pub(crate) json: bool,
}

impl Output {
    /// Shows a result: `value` as one line of JSON, or else what `human` makes of it.
    pub(crate) fn show<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) -> Result<()> {
        let mut text = if self.json { serde_json::to_string(value)? } else { human(value) };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        match io::stdout().write_all(text.as_bytes()) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context(STDOUT_FAILED),
        }
    }
}

/// Says something on standard error, where it disturbs no output.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether somebody watches standard error and nothing else is written to the same screen.
pub(crate) fn progress_is_seen(screen_is_free: bool) -> bool {
    io::stderr().is_terminal() && (screen_is_free || !io::stdout().is_terminal())
}

/// An error and its causes in one sentence; a cause that its effect already quotes is not said again.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A kind's name in JSON and in summaries.
pub(crate) const fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Retry => "retry",
        ErrorKind::Fenced => "fenced",
        ErrorKind::Invalid => "invalid",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Unavailable => "unavailable",
    }
}

/// Columns under headings; a column of numbers is set to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Table {
        Table { rows: vec![headings.map(str::to_owned).into()] }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len(), "a cell for each heading");
        self.rows.push(cells.into());
    }

    /// The table's text: one line a row.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let cells = |column: usize| self.rows.iter().map(move |row| row[column].as_str());
        let widths: Vec<usize> = (0..columns)
            .map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let numeric: Vec<bool> = (0..columns).map(|column| cells(column).skip(1).all(is_number)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let padded =
                    if numeric[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line = if column == 0 { padded } else { format!("{line}  {padded}") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
}

/// A cell for what may be absent.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Bytes as people read them, in powers of ten as rates are stated.
pub(crate) fn human_bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = bytes;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 { 0 } else { 1 };
    format!("{scaled:.digits$} {}", units[unit])
}

/// A latency as people read it: three digits and a unit.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (scaled, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let digits = if scaled >= 100.0 { 0 } else { 2 };
    format!("{scaled:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(["TOPIC", "RECORDS", "AGENT"]);
        table.row(["orders".into(), "7".into(), or_dash(None::<u64>)]);
        table.row(["a".into(), "12345678".into(), "host".into()]);
        assert_eq!(table.text(), "TOPIC    RECORDS  AGENT\norders         7  -\na       12345678  host\n");
    }

    #[test]
    fn sentences_do_not_repeat_themselves() {
        let quoted =
            Err::<(), _>(anyhow::anyhow!("disk full")).context("cannot write: disk full").unwrap_err();
        assert_eq!(sentence(&quoted), "cannot write: disk full");
        let chained = Err::<(), _>(anyhow::anyhow!("disk full")).context("cannot write").unwrap_err();
        assert_eq!(sentence(&chained), "cannot write: disk full");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(human_bytes(999.0), "999 B");
        assert_eq!(human_bytes(1_234_567.0), "1.2 MB");
        assert_eq!(human_duration(Duration::from_micros(12)), "12.00 us");
        assert_eq!(human_duration(Duration::from_micros(123_456)), "123 ms");
        assert_eq!(human_duration(Duration::from_millis(2500)), "2.50 s");
    }

    #[test]
    fn kinds_have_distinct_names() {
        let names: std::collections::BTreeSet<_> = ErrorKind::ALL.into_iter().map(kind_name).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }
}
