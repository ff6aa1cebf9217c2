//! Every maximum of the log, and why it is what it is.

/// Largest encoded record batch, header included.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most records in a batch: what keeps one hook's bins and one batch's acknowledgements small.
pub const BATCH_RECORDS_MAX: usize = 1 << 16;
/// Largest record (key, value and headers): with its framing it fits a batch of its own.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 4096;
/// Most headers of a record: decoded, each takes many times the two bytes it needs encoded.
pub const RECORD_HEADERS_MAX: usize = 4096;
/// Most batch bytes in one produce request.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Most batches in one produce request. An empty batch takes two bytes of a message and a hundred times that once it is
/// decoded: without this a message of permitted size could take all memory.
pub const REQUEST_BATCHES_MAX: usize = 2048;
/// Largest gRPC message either side accepts: a full request and its framing.
pub const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + (1 << 20);
/// Most partitions, or topics, that one metadata request names: as many as the largest topic has. Also the most ranges that
/// one answer has.
pub const METADATA_ITEMS_MAX: usize = PARTITIONS_MAX as usize;
/// Largest metadata request: the most partitions, with names of full length.
pub const METADATA_REQUEST_BYTES_MAX: usize = 4 << 20;
/// Largest answer to one: about 100 000 partitions of a group. It is built and sent in one piece.
pub const METADATA_ANSWER_BYTES_MAX: usize = 32 << 20;
/// Most parts of a metadata message: as many as the largest answer may need. See [`REQUEST_BATCHES_MAX`].
pub const METADATA_PARTS_MAX: usize = 1 << 17;
/// Longest topic name, in bytes.
pub const TOPIC_BYTES_MAX: usize = 249;
/// Longest group name, in bytes.
pub const GROUP_BYTES_MAX: usize = 255;
/// Longest agent or client id, in bytes.
pub const INSTANCE_ID_BYTES_MAX: usize = 127;
/// Longest id of a group's member, in bytes: a client id, a dash and 16 hexadecimal digits.
pub const MEMBER_ID_BYTES_MAX: usize = INSTANCE_ID_BYTES_MAX + 1 + 16;
/// Most partitions of a topic.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Largest segment an agent writes in one flush: bounds the agent's memory and a flush's duration.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Batches of one producer and partition that may wait or be in flight, and that the duplicate check remembers.
pub const IDEMPOTENCE_WINDOW: usize = 5;
/// Largest content of a compressed batch that a reader unpacks. Our builder stays below [`BATCH_BYTES_MAX`] before
/// compression; other writers may pack more, and 16 MiB is what a reader can lose to a batch made to exhaust it.
pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 16 << 20;

/// What a batch takes of a message beside its own bytes and its topic's: tags, lengths, numbers.
const BATCH_FRAMING_BYTES_MAX: usize = 64;
const _: () = assert!(
    REQUEST_BYTES_MAX + REQUEST_BATCHES_MAX * (TOPIC_BYTES_MAX + BATCH_FRAMING_BYTES_MAX)
        <= MESSAGE_BYTES_MAX,
    "a full request of full batches fits a message"
);

/// What a partition takes of a metadata request beside its topic's name: tags, lengths, number, offset, generation.
const ITEM_FRAMING_BYTES_MAX: usize = 64;
const _: () = assert!(
    (METADATA_ITEMS_MAX + 1) * (TOPIC_BYTES_MAX + ITEM_FRAMING_BYTES_MAX)
        + GROUP_BYTES_MAX
        + MEMBER_ID_BYTES_MAX
        <= METADATA_REQUEST_BYTES_MAX,
    "a request that names the most partitions fits a message"
);
