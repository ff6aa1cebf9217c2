//! What the kernel program says → log lines with names for its numbers.

use log::{Log, Metadata, Record};
use streamhouse_abi::Site;
use streamhouse_abi::map::Counter;

/// Passes lines of the kernel program on to the process's logger.
pub(super) struct Named;

impl Log for Named {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        log::logger().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let line = name_numbers(&record.args().to_string());
        let mut said = Record::builder();
        said.metadata(record.metadata().clone()).module_path(record.module_path());
        log::logger().log(&said.file(record.file()).line(record.line()).args(format_args!("{line}")).build());
    }

    fn flush(&self) {
        log::logger().flush();
    }
}

/// Names the numbers after `site` and `reason`: a program has no room for strings. What is not known stays as it is.
fn name_numbers(line: &str) -> String {
    let mut before = "";
    let words = line.split(' ').map(|word| {
        let number = word.trim_end_matches(',');
        let name = match before {
            "site" => number.parse().ok().and_then(Site::from_number).map(Site::name),
            "reason" => number.parse().ok().and_then(|index: usize| Some(Counter::ALL.get(index)?.name())),
            _ => None,
        };
        before = word;
        name.map_or_else(|| word.to_owned(), |name| word.replacen(number, name, 1))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_their_names() {
        let named = "refused a hit of pid 7: site write, target 1, reason over_share";
        assert_eq!(name_numbers("refused a hit of pid 7: site 3, target 1, reason 2"), named);
        for unknown in ["refused: site 9, reason 77", "site", "reason x, site -1", ""] {
            assert_eq!(name_numbers(unknown), unknown);
        }
    }
}
