//! Which series Prometheus has of a label set.

use std::collections::HashMap;

use streamhouse_abi::Status;
use streamhouse_metrics::sources::of_site;
use streamhouse_metrics::{Label, Metric};

use super::{Detail, Labels, SeriesKey};
use crate::room::Room;

/// How many label sets are in each series: a metric without the partition has one of all partitions.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    label_sets: HashMap<SeriesName, u32>,
}

/// A series: its metric, and the values of its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SeriesName {
    metric: &'static str,
    detail: Detail,
    status: Status,
    /// Each followed by a NUL, which no label has inside.
    labels: String,
}

impl Exposed {
    /// Adds a label set to the series in which operations that ended with `status` are counted; for success to those
    /// too that count whatever happens. False when the process has no room for the new ones among them.
    pub(super) fn add(&mut self, pid: u32, key: &SeriesKey, status: Status, room: &mut Room) -> bool {
        let names = || names(key, status);
        let new = names().filter(|(_, name)| !self.label_sets.contains_key(name));
        let series = new.map(|(metric, _)| room.series_of(metric)).sum();
        if !room.take(Some(pid), series) {
            return false;
        }
        for (_, name) in names() {
            *self.label_sets.entry(name).or_default() += 1;
        }
        true
    }

    /// Takes a label set out of them.
    pub(super) fn remove(&mut self, key: &SeriesKey, status: Status, room: &mut Room) {
        for (metric, name) in names(key, status) {
            let Some(label_sets) = self.label_sets.get_mut(&name) else { continue };
            *label_sets -= 1;
            if *label_sets == 0 {
                self.label_sets.remove(&name);
                room.give_back(room.series_of(metric));
            }
        }
    }
}

/// The series of a label set; of the overflow series, which is always there, none.
fn names(key: &SeriesKey, status: Status) -> impl Iterator<Item = (&'static Metric, SeriesName)> {
    let metrics = of_site(key.site);
    let always = metrics.always().filter(move |_| status == Status::Ok);
    let by_status = metrics.by_status(status);
    always.chain(by_status).filter_map(move |metric| {
        let labels = key.labels.as_ref()?;
        let labels = metric.labels.iter().map(|label| value(labels, *label) + "\0").collect();
        Some((metric, SeriesName { metric: metric.name, detail: key.detail, status, labels }))
    })
}

fn value(labels: &Labels, label: Label) -> String {
    match label {
        Label::InstanceId => labels.instance_id.clone(),
        Label::Group => labels.group.clone(),
        Label::Topic => labels.topic.clone(),
        Label::Partition => labels.partition.map_or(String::new(), |partition| partition.to_string()),
        // The detail and the status have their own fields, the others no metric of a site has.
        _ => String::new(),
    }
}

/// Leaves out what no metric of the site has, so that no two label sets are the same series.
pub(super) fn shorten(key: &mut SeriesKey) {
    let Some(labels) = &mut key.labels else { return };
    let metrics = of_site(key.site);
    let has = |label| metrics.has(label);
    if !has(Label::Group) {
        labels.group.clear();
    }
    if !has(Label::Topic) {
        labels.topic.clear();
    }
    if !has(Label::Partition) {
        labels.partition = None;
    }
}
