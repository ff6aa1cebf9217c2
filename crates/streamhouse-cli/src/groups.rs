//! `streamhouse groups`: list, describe, reset-offsets, delete.

use crate::lag::{self, LagRow};
use crate::output::{Output, Table, or_dash};
use crate::places::Places;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use streamhouse_client::{Admin, OffsetTarget};
use streamhouse_core::Counted;
use streamhouse_metadata::{GroupOffset, GroupView, Member, MetadataError};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum Groups {
    /// List all groups.
    List,
    /// Show a group's position and lag on every partition it reads or has read, and which member reads what.
    Describe {
        /// The group.
        group: String,
    },
    /// Move a group on a topic. Stop its consumers first: what one of them reads is not moved.
    ResetOffsets(ResetOffsets),
    /// Remove a group that nobody reads for any more, with all that it has committed.
    Delete {
        /// The group.
        group: String,
        /// Do it; else say what would be lost.
        #[arg(long)]
        yes: bool,
    },
}

/// Where to move a group.
#[derive(Debug, Args)]
pub(crate) struct ResetOffsets {
    /// The group.
    group: String,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// Only this partition; else all.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// The next offset to read: earliest, latest or a number.
    #[arg(long, value_name = "OFFSET")]
    to: OffsetTarget,
    /// Show what would change and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct GroupRow {
    group: String,
    partitions: u32,
    lag_records: u64,
}

#[derive(Debug, Serialize)]
struct DeletedRow {
    group: String,
    partitions: u32,
}

#[derive(Debug, Serialize)]
struct Described {
    group: String,
    members: Vec<MemberRow>,
    offsets: Vec<LagRow>,
}

/// A member and what it reads.
#[derive(Debug, Serialize)]
struct MemberRow {
    member: String,
    topics: Vec<String>,
    /// What it has claimed, as `topic/partition`.
    partitions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ResetRow {
    group: String,
    topic: String,
    partition: u32,
    /// What was committed before; null when nothing was.
    from: Option<u64>,
    to: u64,
    dry_run: bool,
}

/// Does it.
pub(crate) async fn execute(command: Groups, places: &Places, output: Output) -> Result<()> {
    match command {
        Groups::List => {
            let groups = places.viewer().await?.groups().await?;
            let row = |group: &streamhouse_metadata::Group| GroupRow {
                group: group.id.to_string(),
                partitions: group.partitions,
                lag_records: group.lag_records,
            };
            output.show(&groups.iter().map(row).collect::<Vec<_>>(), |rows| groups_table(rows))
        }
        Groups::Describe { group } => {
            let admin = places.viewer().await?;
            let offsets = admin.describe_group(&group).await?;
            let offsets = offsets.iter().map(|offset| LagRow::new(&group, offset)).collect();
            let members = member_rows(&admin.group_members(&group).await?);
            output.show(&Described { group, members, offsets }, describe_text)
        }
        Groups::ResetOffsets(reset) => {
            let admin = if reset.dry_run { places.viewer().await? } else { places.admin().await? };
            let rows = reset_offsets(&admin, &reset).await?;
            output.show(&rows, |rows| reset_table(rows))
        }
        Groups::Delete { group, yes } => {
            let admin = places.admin().await?;
            let partitions = admin.describe_group(&group).await?.len() as u32;
            let counted = Counted(partitions.into(), "partition");
            if !yes {
                bail!(
                    "group {group} has its place in {counted}, which cannot be had back; add --yes to remove it"
                );
            }
            admin.delete_group(&group).await?;
            let deleted = DeletedRow { group: group.clone(), partitions };
            output.show(&deleted, |_| format!("deleted group {group} with its place in {counted}"))
        }
    }
}

async fn reset_offsets(admin: &Admin, reset: &ResetOffsets) -> Result<Vec<ResetRow>> {
    let before = admin.lag(&reset.group, &reset.topic).await?;
    let mut rows = plan(&before, reset)?;
    if !reset.dry_run {
        let moved = admin.reset_offsets(&reset.group, &reset.topic, reset.partition, reset.to).await?;
        // What is latest may have moved on since the plan.
        for (row, (_, offset)) in rows.iter_mut().zip(moved) {
            row.to = offset;
        }
    }
    Ok(rows)
}

fn plan(before: &[GroupOffset], reset: &ResetOffsets) -> Result<Vec<ResetRow>> {
    let partitions = before.len() as u32;
    if let Some(partition) = reset.partition.filter(|partition| *partition >= partitions) {
        let topic = reset.topic.clone();
        return Err(MetadataError::PartitionNotFound { topic, partition, partitions }.into());
    }
    let wanted =
        |offset: &&GroupOffset| reset.partition.is_none_or(|only| offset.partition.partition == only);
    before.iter().filter(wanted).map(|offset| plan_partition(offset, reset)).collect()
}

fn plan_partition(before: &GroupOffset, reset: &ResetOffsets) -> Result<ResetRow> {
    Ok(ResetRow {
        group: reset.group.clone(),
        topic: before.partition.topic.to_string(),
        partition: before.partition.partition,
        from: before.committed,
        to: reset.to.on(&before.partition, before.watermarks)?,
        dry_run: reset.dry_run,
    })
}

fn member_rows(view: &GroupView) -> Vec<MemberRow> {
    let row = |member: &Member| MemberRow {
        member: member.id.to_string(),
        topics: member.topics.iter().map(ToString::to_string).collect(),
        partitions: view
            .claims
            .iter()
            .filter(|claim| claim.member == member.id)
            .map(|claim| claim.partition.to_string())
            .collect(),
    };
    view.members.iter().map(row).collect()
}

fn describe_text(group: &Described) -> String {
    if group.members.is_empty() {
        return lag::table(&group.offsets);
    }
    let mut table = Table::new(["MEMBER", "TOPICS", "PARTITIONS", "READS"]);
    for MemberRow { member, topics, partitions } in &group.members {
        let reads = if partitions.is_empty() { or_dash(None::<u64>) } else { partitions.join(",") };
        table.row([member.clone(), topics.join(","), partitions.len().to_string(), reads]);
    }
    format!("{}\n{}", table.text(), lag::table(&group.offsets))
}

fn groups_table(groups: &[GroupRow]) -> String {
    let mut table = Table::new(["GROUP", "PARTITIONS", "LAG RECORDS"]);
    for row in groups {
        table.row([row.group.clone(), row.partitions.to_string(), row.lag_records.to_string()]);
    }
    table.text()
}

fn reset_table(rows: &[ResetRow]) -> String {
    let mut table = Table::new(["GROUP", "TOPIC", "PARTITION", "FROM", "TO"]);
    for row in rows {
        table.row([
            row.group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            or_dash(row.from),
            row.to.to_string(),
        ]);
    }
    let text = table.text();
    if rows.iter().any(|row| row.dry_run) { format!("{text}dry run: nothing was changed\n") } else { text }
}
