//! The comparison itself.

use crate::lines::{Ended, Got, Identity};
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What there was.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Compared {
    /// Records in the log.
    pub(super) stored: u64,
    /// Records that producers were told are stored.
    pub(super) acknowledged: u64,
    /// Records that producers were told may not be stored.
    pub(super) failed: u64,
    /// Of those, how many are.
    pub(super) failed_and_stored: u64,
    /// Acknowledged records that are not where they should be.
    pub(super) lost: u64,
    /// Records that are in the log again.
    pub(super) duplicates: u64,
    /// Records that members of the group got, each as often as it came.
    pub(super) consumed: u64,
    /// Of those, how many came again, as they may after a member died or lost a partition.
    pub(super) consumed_again: u64,
}

/// Compares; `stored` is by partition and offset. Gives counts and every difference in words.
pub(super) fn compare(
    stored: &[Vec<Identity>],
    producers: &[(String, Vec<Ended>)],
    consumers: &[(String, Vec<Got>)],
) -> Result<(Compared, Vec<String>)> {
    let mut compared = Compared::default();
    let mut differences = Vec::new();
    let ends = ends(producers, &mut compared, &mut differences)?;
    check_log(stored, &ends, &mut compared, &mut differences);
    for (identity, ended) in &ends {
        let Ended::Acknowledged { partition, offset, .. } = ended else { continue };
        if at(stored, *partition, *offset) != Some(identity) {
            compared.lost += 1;
            differences
                .push(format!("{identity:?} was acknowledged at {partition}/{offset} and is not there"));
        }
    }
    check_consumed(stored, consumers, &mut compared, &mut differences);
    Ok((compared, differences))
}

fn at(stored: &[Vec<Identity>], partition: u32, offset: u64) -> Option<&Identity> {
    stored.get(partition as usize)?.get(usize::try_from(offset).ok()?)
}

/// How each record ended. Each must have ended once.
fn ends(
    producers: &[(String, Vec<Ended>)],
    compared: &mut Compared,
    differences: &mut Vec<String>,
) -> Result<HashMap<Identity, Ended>> {
    let mut ends = HashMap::new();
    for (name, lines) in producers {
        let producer = name.parse().with_context(|| format!("producer-{name} is not a producer's file"))?;
        for ended in lines {
            let sequence = match *ended {
                Ended::Acknowledged { sequence, .. } => {
                    compared.acknowledged += 1;
                    sequence
                }
                Ended::Failed { sequence, .. } => {
                    compared.failed += 1;
                    sequence
                }
            };
            let identity = Identity { producer, sequence };
            if ends.insert(identity, *ended).is_some() {
                differences.push(format!("{identity:?} ended twice"));
            }
        }
    }
    Ok(ends)
}

/// Each record was sent to this partition, is there once, and comes in its producer's order.
fn check_log(
    stored: &[Vec<Identity>],
    ends: &HashMap<Identity, Ended>,
    compared: &mut Compared,
    differences: &mut Vec<String>,
) {
    let mut places: HashMap<Identity, (usize, usize)> = HashMap::new();
    for (partition, records) in stored.iter().enumerate() {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (offset, identity) in records.iter().enumerate() {
            compared.stored += 1;
            if let Some(first) = places.insert(*identity, (partition, offset)) {
                compared.duplicates += 1;
                differences
                    .push(format!("{identity:?} is at {partition}/{offset} and at {}/{}", first.0, first.1));
                continue;
            }
            match ends.get(identity) {
                None => differences.push(format!("{partition}/{offset}: nobody sent {identity:?}")),
                Some(Ended::Failed { partition: sent, .. }) => {
                    compared.failed_and_stored += 1;
                    if *sent as usize != partition {
                        differences.push(format!("{identity:?} was sent to {sent} and is in {partition}"));
                    }
                }
                Some(Ended::Acknowledged { .. }) => {}
            }
            let before = last.insert(identity.producer, identity.sequence);
            if before.is_some_and(|before| before >= identity.sequence) {
                differences.push(format!("{partition}/{offset}: {identity:?} comes after {before:?}"));
            }
        }
    }
}

/// The group got every record, and each as it is in the log. A member that gets a partition again may begin again at an
/// offset that it has had; it never skips what nobody else has had.
fn check_consumed(
    stored: &[Vec<Identity>],
    consumers: &[(String, Vec<Got>)],
    compared: &mut Compared,
    differences: &mut Vec<String>,
) {
    let mut had: Vec<Vec<bool>> = stored.iter().map(|records| vec![false; records.len()]).collect();
    for (name, lines) in consumers {
        for got in lines {
            compared.consumed += 1;
            let Got { partition, offset, identity } = got;
            if at(stored, *partition, *offset) != Some(identity) {
                differences.push(format!(
                    "consumer {name} got {identity:?} at {partition}/{offset}; it is not there"
                ));
                continue;
            }
            if std::mem::replace(&mut had[*partition as usize][*offset as usize], true) {
                compared.consumed_again += 1;
            }
        }
    }
    for (partition, had) in had.iter().enumerate() {
        let missed = had.iter().filter(|had| !**had).count();
        if let Some(first) = had.iter().position(|had| !had) {
            differences
                .push(format!("partition {partition}: no consumer got {missed} records, first {first}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(producer: u32, sequence: u64) -> Identity {
        Identity { producer, sequence }
    }

    fn got(stored: &[Vec<Identity>]) -> Vec<(String, Vec<Got>)> {
        let all = stored.iter().enumerate().flat_map(|(partition, records)| {
            let partition = partition as u32;
            records.iter().enumerate().map(move |(offset, identity)| Got {
                partition,
                offset: offset as u64,
                identity: *identity,
            })
        });
        vec![("a".to_owned(), all.collect())]
    }

    /// Of producer 1: 0 and 1 acknowledged at offsets 0 and 1, 2 failed.
    fn sent() -> Vec<(String, Vec<Ended>)> {
        let acknowledged = |sequence| Ended::Acknowledged { partition: 0, offset: sequence, sequence };
        let failed = Ended::Failed { partition: 0, sequence: 2 };
        vec![("1".to_owned(), vec![acknowledged(0), acknowledged(1), failed])]
    }

    fn differences(stored: &[Vec<Identity>], consumers: &[(String, Vec<Got>)]) -> Vec<String> {
        compare(stored, &sent(), consumers).unwrap().1
    }

    #[test]
    fn a_log_as_it_should_be_has_no_differences() {
        for stored in
            [vec![vec![record(1, 0), record(1, 1)]], vec![vec![record(1, 0), record(1, 1), record(1, 2)]]]
        {
            let (compared, differences) = compare(&stored, &sent(), &got(&stored)).unwrap();
            assert!(differences.is_empty(), "{differences:?}");
            assert_eq!((compared.acknowledged, compared.failed), (2, 1));
            assert_eq!(compared.failed_and_stored, stored[0].len() as u64 - 2);
        }
        // What comes again is no difference.
        let stored = vec![vec![record(1, 0), record(1, 1)]];
        let mut consumers = got(&stored);
        consumers.extend(got(&stored));
        assert_eq!(compare(&stored, &sent(), &consumers).unwrap().0.consumed_again, 2);
        assert!(differences(&stored, &consumers).is_empty());
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        let wrong = [
            ("lost", vec![record(1, 0)]),
            ("elsewhere", vec![record(1, 1), record(1, 0)]),
            ("stored twice", vec![record(1, 0), record(1, 1), record(1, 1)]),
            ("sent by nobody", vec![record(1, 0), record(1, 1), record(1, 3)]),
            ("out of order", vec![record(1, 0), record(1, 1), record(2, 5), record(2, 4)]),
        ];
        for (what, records) in wrong {
            let stored = vec![records];
            assert!(!differences(&stored, &got(&stored)).is_empty(), "{what} is not found");
        }
        let stored = vec![vec![record(1, 0), record(1, 1)]];
        let mut consumers = got(&stored);
        let last = consumers[0].1.pop().unwrap();
        assert!(!differences(&stored, &consumers).is_empty(), "what no consumer got is not found");
        consumers[0].1.push(Got { identity: record(1, 7), ..last });
        assert!(
            !differences(&stored, &consumers).is_empty(),
            "what a consumer got and is not there is not found"
        );
    }
}
