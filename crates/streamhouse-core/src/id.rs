//! Names and numbers, parsed once: a value of one of these types is valid.

use crate::limits::{GROUP_BYTES_MAX, INSTANCE_ID_BYTES_MAX, MEMBER_ID_BYTES_MAX, TOPIC_BYTES_MAX};
use std::{fmt, str::FromStr, sync::Arc};

/// A partition's number within its topic, from 0.
pub type Partition = u32;

/// A name that breaks the rules. The message says which rule and what the rules are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {what} {name:?}: {problem}. A {what} has 1 to {max} characters out of a-z, A-Z, 0-9, '.', '_' and '-', and is not '.' or '..'"
)]
pub struct InvalidName {
    what: &'static str,
    name: String,
    problem: &'static str,
    max: usize,
}

fn check(what: &'static str, name: &str, max: usize) -> Result<Arc<str>, InvalidName> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > max {
        "it is too long"
    } else if name == "." || name == ".." {
        "it means a directory"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        "it has a character that is not allowed"
    } else {
        return Ok(name.into());
    };
    // A hostile name is cut, so that an error message stays a line.
    let name = name.chars().take(max.min(80)).collect();
    Err(InvalidName { what, name, problem, max })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            #[doc = concat!("Checks and takes a ", $what, ".")]
            ///
            /// # Errors
            ///
            /// [`InvalidName`] when the name breaks the rules; use another.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check($what, name, $max).map(Self)
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// A topic's name.
    TopicName, "topic name", TOPIC_BYTES_MAX
);
name!(
    /// A consumer group's name.
    GroupId, "group id", GROUP_BYTES_MAX
);
name!(
    /// An agent's id: unique among the agents of one metadata store.
    AgentId, "agent id", INSTANCE_ID_BYTES_MAX
);

name!(
    /// A group member's id: its client id and random characters, so that no two consumers ever share one.
    MemberId, "member id", MEMBER_ID_BYTES_MAX
);

/// A partition of a topic. Clones are cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: Partition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A segment's id: 128 random bits drawn by the agent that writes it, so that two agents never write one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u128);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SegmentId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(SegmentId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_checked_and_the_message_says_them() {
        for good in ["orders", "a", "A.b_c-9", &"x".repeat(TOPIC_BYTES_MAX)] {
            assert_eq!(TopicName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(TOPIC_BYTES_MAX + 1)] {
            let message = TopicName::new(bad).unwrap_err().to_string();
            assert!(
                message.starts_with("invalid topic name") && message.contains("1 to 249 characters"),
                "{message}"
            );
        }
    }

    #[test]
    fn segment_ids_round_trip() {
        let id = SegmentId(0xabc);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
