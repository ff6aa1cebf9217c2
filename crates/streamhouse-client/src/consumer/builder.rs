//! A consumer's settings.

use crate::consumer::Consumer;
use crate::consumer::cursor::{Cursor, Source};
use crate::consumer::keeper::Seat;
use crate::consumer::membership::Membership;
use crate::error::{ClientError, Result};
use crate::identity;
use crate::{remote, security::ClientSecurity};
use object_store::ObjectStore;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use streamhouse_core::{AsTyped, GroupId, MemberId, TopicName, TopicPartition};
use streamhouse_hooks::{Instance, Role};
use streamhouse_metadata::{ClientStore, Watermarks};
use streamhouse_storage::SegmentStore;

/// Records of one poll when not set: 500.
const MAX_POLL_RECORDS: usize = 500;
/// Session timeout when not set: 10 s.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest session timeout: 1 s. A busy machine would lose shorter sessions though it lives.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longest session timeout: 1 day.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Heartbeat interval when not set: 1 s, or a third of the session timeout when that is less.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Heartbeats that fit a session at least, so that one may fail.
const HEARTBEATS_MIN: u32 = 3;
/// Longest time between two polls when not set: 5 min.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Where to start when the group has committed nothing, or an offset that can no longer be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record there is.
    #[default]
    Earliest,
    /// At the high watermark: only what comes from now on.
    Latest,
}

/// Configures a [`Consumer`]. Group, topics, `bootstrap` or the metadata store, and the object store must be set.
pub struct ConsumerBuilder {
    metadata_store: Option<Arc<dyn ClientStore>>,
    bootstrap: Option<String>,
    security: ClientSecurity,
    object_store: Option<Arc<dyn ObjectStore>>,
    group_id: Option<String>,
    client_id: Option<String>,
    topics: Vec<String>,
    offset_reset: OffsetReset,
    max_poll_records: usize,
    auto_commit: Option<Duration>,
    standalone: bool,
    session_timeout: Duration,
    heartbeat_interval: Option<Duration>,
    max_poll_interval: Option<Duration>,
    #[cfg(feature = "metrics")]
    metrics: Option<Arc<crate::ConsumerMetrics>>,
}

impl Default for ConsumerBuilder {
    fn default() -> Self {
        Self {
            metadata_store: None,
            bootstrap: None,
            security: ClientSecurity::default(),
            object_store: None,
            group_id: None,
            client_id: None,
            topics: Vec::new(),
            offset_reset: OffsetReset::default(),
            max_poll_records: MAX_POLL_RECORDS,
            auto_commit: None,
            standalone: false,
            session_timeout: SESSION_TIMEOUT,
            heartbeat_interval: None,
            max_poll_interval: None,
            #[cfg(feature = "metrics")]
            metrics: None,
        }
    }
}

impl ConsumerBuilder {
    /// Agents that are asked where topics, segments and groups are: `HOST:PORT[,HOST:PORT]`. Any will do, and of several
    /// any that answers.
    pub fn bootstrap(mut self, addresses: impl Into<String>) -> Self {
        self.bootstrap = Some(addresses.into());
        self
    }

    /// Token and TLS for the connections to those agents. Default: neither.
    pub fn security(mut self, security: ClientSecurity) -> Self {
        self.security = security;
        self
    }

    /// Where topics, segments and groups are found, instead of `bootstrap`: for who has access to the database itself. An
    /// `Arc<SqliteMetadataStore>` can be passed as it is.
    pub fn metadata_store(mut self, store: Arc<dyn ClientStore>) -> Self {
        self.metadata_store = Some(store);
        self
    }

    /// Where segments are.
    pub fn object_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        self.object_store = Some(store);
        self
    }

    /// The group it is a member of, and whose offsets it resumes and commits.
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// The topics to read. Members of a group may read different topics; each is shared by those that read it.
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
    /// polls returned; and whenever a partition is handed to another member. Default: off.
    pub fn auto_commit(mut self, every: Duration) -> Self {
        self.auto_commit = Some(every);
        self
    }

    /// Reads every partition of the topics without being a member of the group: for tools that look at all of a topic,
    /// whoever else reads it. Commits are refused for partitions that a member has claimed. Default: a member.
    pub fn standalone(mut self, standalone: bool) -> Self {
        self.standalone = standalone;
        self
    }

    /// Counts for a registry that the application serves. Default: nothing does.
    #[cfg(feature = "metrics")]
    pub fn metrics(mut self, metrics: Option<Arc<crate::ConsumerMetrics>>) -> Self {
        self.metrics = metrics;
        self
    }

    /// How long a member that is not heard of keeps its partitions: so late others take over from one that died. Default
    /// 10 s; from 1 s to 1 day.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How often a member tells the metadata store that it lives, and looks who else does; so late it notices that others
    /// come and go. Each costs the store one small transaction. Default 1 s, and at most a third of the session timeout.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = Some(interval);
        self
    }

    /// A member that was neither polled nor committed for this long leaves its partitions to others, though its process
    /// lives; its next poll joins again. Default 5 min, or the session timeout when that is more; no less than it.
    pub fn max_poll_interval(mut self, interval: Duration) -> Self {
        self.max_poll_interval = Some(interval);
        self
    }

    /// Joins the group and claims what belongs to it, which is nothing as long as others hold all: the first polls get
    /// what they hand over. With [`standalone`](Self::standalone), finds all partitions instead.
    ///
    /// # Errors
    ///
    /// `Invalid` for a setting that is missing or wrong; `NotFound` for a topic that does not exist; otherwise what the
    /// metadata store met.
    pub async fn build(mut self) -> Result<Consumer> {
        let (direct, bootstrap) = (self.metadata_store.take(), self.bootstrap.take());
        let store = remote::store_of("consumer", direct, bootstrap, &self.security).await?;
        let objects = self.object_store.take().ok_or_else(|| missing("object_store"))?;
        let group = GroupId::new(&self.group_id.take().ok_or_else(|| missing("group_id"))?)?;
        let (heartbeat, max_poll_interval) = self.check()?;
        let client_id = identity::client_id(self.client_id.take(), "consumer")?;
        let mut topics = Vec::new();
        for name in self.topics.iter().collect::<BTreeSet<_>>() {
            let topic = store.topic(&TopicName::new(name)?).await?;
            topics.push((topic.name, topic.partitions));
        }

        let instance = Instance::new(Role::Consumer, &client_id, group.as_str());
        #[cfg(feature = "metrics")]
        let instance = instance.recorded(self.metrics.take().map(|metrics| metrics.recorder()));
        let segments = SegmentStore::new(objects, &instance);
        let source = Source { instance, segments, reset: self.offset_reset };
        let mut consumer = Consumer::new(store, group, source, self.max_poll_records, self.auto_commit);
        if self.standalone {
            let starts = consumer.store.group_offsets(&consumer.group, &partitions(&topics)).await?;
            let cursors = starts.iter().map(|start| Cursor::new(&consumer.source, start, 0));
            consumer.cursors = cursors.collect();
            return Ok(consumer);
        }
        consumer.membership = Some(Membership::start(Seat {
            store: Arc::clone(&consumer.store),
            group: consumer.group.clone(),
            member: member_id(&client_id)?,
            topics,
            session: self.session_timeout,
            heartbeat,
            max_poll_interval,
        }));
        consumer.take_part().await?;
        Ok(consumer)
    }

    /// Checks what can be checked without a store; gives the heartbeat and the longest poll interval.
    fn check(&self) -> Result<(Duration, Duration)> {
        if self.topics.is_empty() {
            return Err(missing("topics"));
        }
        if self.max_poll_records == 0 {
            return Err(ClientError::Invalid("max_poll_records is 0; it must be at least 1".to_owned()));
        }
        let session = self.session_timeout;
        if !(SESSION_TIMEOUT_MIN..=SESSION_TIMEOUT_MAX).contains(&session) {
            return Err(ClientError::Invalid(format!(
                "session_timeout is {}; it must be from {} to {}",
                AsTyped(session),
                AsTyped(SESSION_TIMEOUT_MIN),
                AsTyped(SESSION_TIMEOUT_MAX)
            )));
        }
        let max_poll_interval = self.max_poll_interval.unwrap_or(MAX_POLL_INTERVAL.max(session));
        if max_poll_interval < session {
            return Err(ClientError::Invalid(format!(
                "max_poll_interval is {}; it must be at least session_timeout, {}",
                AsTyped(max_poll_interval),
                AsTyped(session)
            )));
        }
        let longest = session / HEARTBEATS_MIN;
        match self.heartbeat_interval {
            None => Ok((HEARTBEAT_INTERVAL.min(longest), max_poll_interval)),
            Some(interval) if !interval.is_zero() && interval <= longest => Ok((interval, max_poll_interval)),
            Some(interval) => Err(ClientError::Invalid(format!(
                "heartbeat_interval is {}; it must be over 0 and at most a third of session_timeout, {}",
                AsTyped(interval),
                AsTyped(session)
            ))),
        }
    }
}

fn missing(what: &str) -> ClientError {
    ClientError::Invalid(format!("a consumer needs `{what}`; set it on the builder"))
}

fn partitions(topics: &[(TopicName, u32)]) -> Vec<TopicPartition> {
    let of = |(topic, partitions): &(TopicName, u32)| {
        let topic = topic.clone();
        (0..*partitions).map(move |partition| TopicPartition { topic: topic.clone(), partition })
    };
    topics.iter().flat_map(of).collect()
}

/// The client id, as far as its characters are those of a name, and random digits.
fn member_id(client_id: &str) -> Result<MemberId> {
    let allowed = |byte: char| byte.is_ascii_alphanumeric() || matches!(byte, '.' | '_' | '-');
    let named: String = client_id.chars().map(|byte| if allowed(byte) { byte } else { '_' }).collect();
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| ClientError::Invalid(format!("the kernel gives no random numbers: {error}")))?;
    Ok(MemberId::new(&format!("{named}-{:016x}", u64::from_ne_bytes(random)))?)
}

impl OffsetReset {
    pub(crate) fn offset(self, watermarks: Watermarks) -> u64 {
        match self {
            OffsetReset::Earliest => watermarks.log_start,
            OffsetReset::Latest => watermarks.high_watermark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_after_its_client_and_never_the_same() {
        for client in ["web-1", "läptop consumer", &"x".repeat(127), "."] {
            let [one, two] = [member_id(client).unwrap(), member_id(client).unwrap()];
            assert_ne!(one, two);
        }
        assert!(member_id("läptop consumer").unwrap().as_str().starts_with("l_ptop_consumer-"));
    }
}
