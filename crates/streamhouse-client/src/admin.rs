//! Topics and groups, managed.

use crate::error::{ClientError, Result};
use crate::{ClientSecurity, RemoteMetadataStore};
use std::{fmt, str::FromStr, sync::Arc};
use streamhouse_core::{GroupId, Partition, TopicName, TopicPartition};
use streamhouse_metadata::{
    ClientStore, Group, GroupOffset, GroupView, MetadataError, OffsetCommit, PartitionInfo, Retention, Topic,
    Watermarks,
};

/// Creates topics, lists what there is, moves groups.
///
/// ```no_run
/// use streamhouse_client::Retention;
///
/// # async fn example(store: std::sync::Arc<dyn streamhouse_client::ClientStore>) -> streamhouse_client::Result<()> {
/// let admin = streamhouse_client::Admin::new(store);
/// admin.create_topic("orders", 4, Retention::default()).await?;
/// for partition in admin.describe_topic("orders").await?.partitions {
///     println!("{}: {}", partition.partition, partition.watermarks.high_watermark);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    store: Arc<dyn ClientStore>,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic.
    pub topic: Topic,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// Where to move a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetTarget {
    /// The first offset that can be read.
    Earliest,
    /// The high watermark: only what comes from now on.
    Latest,
    /// This offset.
    Offset(u64),
}

impl OffsetTarget {
    /// The offset that this is on a partition.
    ///
    /// # Errors
    ///
    /// `Invalid` when it lies outside of what can be read.
    pub fn on(self, partition: &TopicPartition, watermarks: Watermarks) -> Result<u64> {
        let Watermarks { log_start, high_watermark } = watermarks;
        match self {
            OffsetTarget::Earliest => Ok(log_start),
            OffsetTarget::Latest => Ok(high_watermark),
            OffsetTarget::Offset(offset) if (log_start..=high_watermark).contains(&offset) => Ok(offset),
            OffsetTarget::Offset(offset) => Err(ClientError::Invalid(format!(
                "offset {offset} is outside of {partition}, which goes from {log_start} to {high_watermark}; \
                 use an offset between them"
            ))),
        }
    }
}

impl FromStr for OffsetTarget {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "earliest" => Ok(OffsetTarget::Earliest),
            "latest" => Ok(OffsetTarget::Latest),
            number => number.parse().map(OffsetTarget::Offset).map_err(|_| {
                ClientError::Invalid(format!(
                    "{text:?} is no offset; use `earliest`, `latest` or a number from 0"
                ))
            }),
        }
    }
}

impl fmt::Display for OffsetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffsetTarget::Earliest => f.write_str("earliest"),
            OffsetTarget::Latest => f.write_str("latest"),
            OffsetTarget::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

impl Admin {
    /// Works on this metadata store.
    pub fn new(store: Arc<dyn ClientStore>) -> Self {
        Self { store }
    }

    /// Asks the agents at these addresses, `HOST:PORT[,HOST:PORT]`, of which any will do.
    ///
    /// # Errors
    ///
    /// `Invalid` for an address, a token or a certificate file that cannot be used.
    pub async fn bootstrap(addresses: impl Into<String>, security: ClientSecurity) -> Result<Self> {
        let store = RemoteMetadataStore::builder(addresses).security(security).build().await?;
        Ok(Self::new(Arc::new(store)))
    }

    /// Creates a topic with partitions `0..partitions`, whose records are kept as long as `retention` says; its default
    /// keeps them for ever.
    ///
    /// # Errors
    ///
    /// `Invalid` when the name breaks the rules, is taken, `partitions` is 0 or over
    /// [`PARTITIONS_MAX`](streamhouse_core::limits::PARTITIONS_MAX), or the retention is zero.
    pub async fn create_topic(&self, name: &str, partitions: u32, retention: Retention) -> Result<Topic> {
        Ok(self.store.create_topic(&TopicName::new(name)?, partitions, retention).await?)
    }

    /// Changes how long a topic's records are kept; gives the topic as it is now. What is kept no longer goes with the
    /// agents' next upkeep.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such topic; `Invalid` when the retention is zero.
    pub async fn set_retention(&self, name: &str, retention: Retention) -> Result<Topic> {
        Ok(self.store.set_retention(&TopicName::new(name)?, retention).await?)
    }

    /// Removes a topic with all its records, and with what groups have committed there. It cannot be taken back. Who writes or
    /// reads it is told that there is none; another topic of the name has nothing of it.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such topic; otherwise what the metadata store met.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        Ok(self.store.delete_topic(&TopicName::new(name)?).await?)
    }

    /// All topics, by name.
    ///
    /// # Errors
    ///
    /// When the metadata store cannot be read.
    pub async fn topics(&self) -> Result<Vec<Topic>> {
        Ok(self.store.topics().await?)
    }

    /// A topic, its partitions, and who writes each.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such topic.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        let name = TopicName::new(name)?;
        let topic = self.store.topic(&name).await?;
        let partitions = self.store.partitions(&name).await?;
        Ok(TopicDescription { topic, partitions })
    }

    /// All groups, by name.
    ///
    /// # Errors
    ///
    /// When the metadata store cannot be read.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        Ok(self.store.groups().await?)
    }

    /// Removes a group with all that it has committed, so that nothing tells of its lag any more. It cannot be taken back; a
    /// consumer that joins the group later finds a new one.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such group; `Invalid` when it has members: stop them first.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        Ok(self.store.delete_group(&GroupId::new(group)?).await?)
    }

    /// Every partition that the group has read or committed on, with its lag.
    ///
    /// # Errors
    ///
    /// `NotFound` when the group has never committed and never had a member.
    pub async fn describe_group(&self, group: &str) -> Result<Vec<GroupOffset>> {
        Ok(self.store.describe_group(&GroupId::new(group)?).await?)
    }

    /// Who reads for the group now, and who of them reads which partition.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such group.
    pub async fn group_members(&self, group: &str) -> Result<GroupView> {
        Ok(self.store.group_view(&GroupId::new(group)?).await?)
    }

    /// How far a group is on every partition of a topic; also of a group that has not committed yet.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such topic.
    pub async fn lag(&self, group: &str, topic: &str) -> Result<Vec<GroupOffset>> {
        let partitions = self.partitions_of(topic, None).await?;
        Ok(self.store.group_offsets(&GroupId::new(group)?, &partitions).await?)
    }

    /// Moves a group on one partition of a topic, or on all of them, in one transaction; gives the new offsets.
    ///
    /// # Errors
    ///
    /// `NotFound` when the topic or partition does not exist; `Invalid` when an offset lies outside of what can be read, or
    /// a consumer of the group reads one of the partitions: stop it first. Nothing is changed then.
    pub async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        partition: Option<Partition>,
        to: OffsetTarget,
    ) -> Result<Vec<(TopicPartition, u64)>> {
        let group = GroupId::new(group)?;
        let partitions = self.partitions_of(topic, partition).await?;
        let watermarks = self.store.watermarks(&partitions).await?;
        let mut offsets = Vec::with_capacity(partitions.len());
        for (partition, watermarks) in partitions.into_iter().zip(watermarks) {
            let offset = to.on(&partition, watermarks)?;
            offsets.push((partition, offset));
        }
        let commits = offsets.iter().map(|(partition, offset)| OffsetCommit {
            partition: partition.clone(),
            offset: *offset,
            generation: 0,
        });
        self.store.commit_offsets(&group, None, &commits.collect::<Vec<_>>()).await?;
        Ok(offsets)
    }

    async fn partitions_of(&self, topic: &str, partition: Option<Partition>) -> Result<Vec<TopicPartition>> {
        let topic = self.store.topic(&TopicName::new(topic)?).await?;
        if let Some(partition) = partition.filter(|partition| *partition >= topic.partitions) {
            let Topic { name, partitions, .. } = topic;
            return Err(
                MetadataError::PartitionNotFound { topic: name.to_string(), partition, partitions }.into()
            );
        }
        let numbers = partition.map_or(0..topic.partitions, |only| only..only + 1);
        Ok(numbers.map(|partition| TopicPartition { topic: topic.name.clone(), partition }).collect())
    }
}
