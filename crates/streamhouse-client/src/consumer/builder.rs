//! A consumer's settings.

use crate::consumer::{Consumer, cursor::Cursor};
use crate::error::{ClientError, Result};
use crate::identity;
use object_store::ObjectStore;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use streamhouse_core::{GroupId, TopicName, TopicPartition};
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::{ClientStore, Watermarks};
use streamhouse_storage::SegmentStore;

/// Records of one poll when not set: 500.
const MAX_POLL_RECORDS: usize = 500;

/// Where to start when the group has committed nothing, or an offset that can no longer be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record there is.
    #[default]
    Earliest,
    /// At the high watermark: only what comes from now on.
    Latest,
}

/// Configures a [`Consumer`]. Group, topics and both stores must be set.
pub struct ConsumerBuilder {
    metadata_store: Option<Arc<dyn ClientStore>>,
    object_store: Option<Arc<dyn ObjectStore>>,
    group_id: Option<String>,
    client_id: Option<String>,
    topics: Vec<String>,
    offset_reset: OffsetReset,
    max_poll_records: usize,
    auto_commit: Option<Duration>,
}

impl Default for ConsumerBuilder {
    fn default() -> Self {
        Self {
            metadata_store: None,
            object_store: None,
            group_id: None,
            client_id: None,
            topics: Vec::new(),
            offset_reset: OffsetReset::default(),
            max_poll_records: MAX_POLL_RECORDS,
            auto_commit: None,
        }
    }
}

impl ConsumerBuilder {
    /// Where topics, segments and groups are found. An `Arc<SqliteMetadataStore>` can be passed as it is.
    pub fn metadata_store(mut self, store: Arc<dyn ClientStore>) -> Self {
        self.metadata_store = Some(store);
        self
    }

    /// Where segments are.
    pub fn object_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        self.object_store = Some(store);
        self
    }

    /// The group whose offsets it resumes and commits.
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// The topics to read, all partitions of each.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// The id in metrics and logs; 1 to 127 bytes. Default: the host's name and `-consumer`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Where to start without a usable committed offset. Default: earliest.
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.offset_reset = reset;
        self
    }

    /// Most records one poll returns. Default 500.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.max_poll_records = records;
        self
    }

    /// Commits by itself at most this often, at the beginning of a poll and in [`close`](Consumer::close), what earlier
    /// polls returned. Default: off.
    pub fn auto_commit(mut self, every: Duration) -> Self {
        self.auto_commit = Some(every);
        self
    }

    /// Finds the partitions and where the group stands on each.
    ///
    /// # Errors
    ///
    /// `Invalid` for a setting that is missing or wrong; `NotFound` for a topic that does not exist; otherwise what the
    /// metadata store met.
    pub async fn build(self) -> Result<Consumer> {
        let missing =
            |what: &str| ClientError::Invalid(format!("a consumer needs `{what}`; set it on the builder"));
        let store = self.metadata_store.ok_or_else(|| missing("metadata_store"))?;
        let objects = self.object_store.ok_or_else(|| missing("object_store"))?;
        let group = GroupId::new(&self.group_id.ok_or_else(|| missing("group_id"))?)?;
        if self.topics.is_empty() {
            return Err(missing("topics"));
        }
        if self.max_poll_records == 0 {
            return Err(ClientError::Invalid("max_poll_records is 0; it must be at least 1".to_owned()));
        }
        let client_id = identity::client_id(self.client_id, "consumer")?;

        let mut partitions = Vec::new();
        for name in self.topics.iter().collect::<BTreeSet<_>>() {
            let topic = store.topic(&TopicName::new(name)?).await?;
            let numbers = 0..topic.partitions;
            partitions
                .extend(numbers.map(|partition| TopicPartition { topic: topic.name.clone(), partition }));
        }
        let starts = store.group_offsets(&group, &partitions).await?;
        let instance = Instance::new(Role::Consumer, &client_id, group.as_str());
        let segments = SegmentStore::new(objects, &instance);
        let cursors = starts
            .iter()
            .map(|start| Cursor::new(start, self.offset_reset, segments.clone(), &instance))
            .collect();
        let mut consumer = Consumer::new(store, group, cursors, self.max_poll_records, self.auto_commit);
        consumer.publish_progress(&starts);
        Ok(consumer)
    }
}

impl OffsetReset {
    pub(crate) fn offset(self, watermarks: Watermarks) -> u64 {
        match self {
            OffsetReset::Earliest => watermarks.log_start,
            OffsetReset::Latest => watermarks.high_watermark,
        }
    }
}
