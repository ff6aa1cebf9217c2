//! What the simulation does not look at: groups and their members.

use super::calls::{Database, no_groups};
use async_trait::async_trait;
use std::time::Duration;
use streamhouse_core::{GroupId, MemberId, TopicName, TopicPartition};
use streamhouse_metadata::*;

/// Nobody here is in a group.
macro_rules! unasked {
    ($($trait:ident { $($name:ident($($arg:ident: $type:ty),*) -> $given:ty;)* })*) => {$(
        #[async_trait]
        impl $trait for Database {$(
            async fn $name(&self, $($arg: $type),*) -> Result<$given> {
                $(let _ = $arg;)*
                Err(no_groups())
            }
        )*}
    )*};
}

unasked! {
    Groups {
        commit_offsets(group: &GroupId, member: Option<&MemberId>, offsets: &[OffsetCommit]) -> ();
        group_offsets(group: &GroupId, partitions: &[TopicPartition]) -> Vec<GroupOffset>;
        groups() -> Vec<Group>;
        describe_group(group: &GroupId) -> Vec<GroupOffset>;
        delete_group(group: &GroupId) -> ();
    }
    Members {
        join_group(group: &GroupId, member: &MemberId, topics: &[TopicName], session: Duration) -> GroupView;
        heartbeat_member(group: &GroupId, member: &MemberId, session: Duration) -> GroupView;
        claim_partitions(group: &GroupId, member: &MemberId, wanted: &[TopicPartition]) -> Vec<Claimed>;
        release_claims(group: &GroupId, member: &MemberId, partitions: &[TopicPartition]) -> ();
        leave_group(group: &GroupId, member: &MemberId) -> ();
        group_view(group: &GroupId) -> GroupView;
    }
}
