//! What a `request` event asked for.

/// Declares the methods with their numbers, in order, and the names by which gRPC knows them.
macro_rules! methods {
    ($($method:ident = $number:literal: $doc:literal,)*) => {
        /// A method of the agent's gRPC services. Numbers are never given to another method.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Method {
            $(#[doc = $doc] $method = $number,)*
        }

        impl Method {
            /// Every method, in the order of its number.
            pub const ALL: &[Method] = &[$(Method::$method),*];

            /// The value of the `method` label: the last part of the gRPC path.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Method::$method => stringify!($method),)*
                }
            }
        }
    };
}

methods! {
    Other = 0: "None of the services' methods: the caller asked for something that there is not.",
    Produce = 1: "Append batches.",
    CreateTopic = 2: "Make a topic.",
    SetRetention = 3: "Change how long a topic's records are kept.",
    GetTopic = 4: "Describe a topic.",
    ListTopics = 5: "List topics.",
    ListPartitions = 6: "List partitions and who leases them.",
    GetWatermarks = 7: "Ask how far partitions reach.",
    NewProducerId = 8: "Draw a producer's id.",
    ListRanges = 9: "Find the segments of a range of offsets.",
    CommitOffsets = 10: "Commit a group's offsets.",
    GetGroupOffsets = 11: "Ask for a group's offsets.",
    ListGroups = 12: "List groups.",
    DescribeGroup = 13: "Describe a group.",
    JoinGroup = 14: "Become a member of a group.",
    HeartbeatMember = 15: "Stay a member of a group.",
    ClaimPartitions = 16: "Claim partitions for a member.",
    ReleaseClaims = 17: "Give a member's partitions back.",
    LeaveGroup = 18: "Leave a group.",
    GetGroupView = 19: "Ask who is in a group.",
    DeleteTopic = 20: "Remove a topic.",
    DeleteGroup = 21: "Remove a group.",
}

impl Method {
    /// The method of a name; [`Method::Other`] when there is none of it.
    pub fn from_name(name: &str) -> Method {
        Method::ALL.iter().copied().find(|method| method.name() == name).unwrap_or(Method::Other)
    }

    /// The method of a number, if there is one.
    pub fn from_number(number: u16) -> Option<Method> {
        Method::ALL.get(usize::from(number)).copied()
    }
}

const _: () = {
    let mut number = 0;
    while number < Method::ALL.len() {
        assert!(Method::ALL[number] as usize == number);
        number += 1;
    }
};
