-- How long a topic's records are kept; null: for ever.
ALTER TABLE topics ADD COLUMN retention_ms INTEGER CHECK (retention_ms > 0);
ALTER TABLE topics ADD COLUMN retention_bytes INTEGER CHECK (retention_bytes > 0);

-- Bytes of the partition's batches from the log start on.
ALTER TABLE partitions ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

UPDATE partitions SET bytes = live.bytes
FROM (SELECT topic_id, partition, sum(bytes) AS bytes FROM segment_ranges GROUP BY topic_id, partition) AS live
WHERE partitions.topic_id = live.topic_id AND partitions.partition = live.partition;

-- How many ranges a segment has, and since when it has none; null while it has one.
ALTER TABLE segments ADD COLUMN live_ranges INTEGER NOT NULL DEFAULT 0 CHECK (live_ranges >= 0);
ALTER TABLE segments ADD COLUMN dead_ms INTEGER;

UPDATE segments SET live_ranges = live.ranges
FROM (SELECT segment, count(*) AS ranges FROM segment_ranges GROUP BY segment) AS live
WHERE seq = live.segment;

UPDATE segments SET dead_ms = committed_ms WHERE live_ranges = 0;

-- As it was, but without the reference to its segment, for which every removal of a segment would read the whole table:
-- live_ranges keeps a segment as long as it has a range.
CREATE TABLE live_segment_ranges (
    topic_id       INTEGER NOT NULL,
    partition      INTEGER NOT NULL,
    base_offset    INTEGER NOT NULL,
    end_offset     INTEGER NOT NULL CHECK (end_offset > base_offset),
    segment        INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    index_position INTEGER NOT NULL,
    index_bytes    INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, base_offset),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

INSERT INTO live_segment_ranges SELECT * FROM segment_ranges;
DROP TABLE segment_ranges;
ALTER TABLE live_segment_ranges RENAME TO segment_ranges;

CREATE INDEX segments_dead ON segments (dead_ms) WHERE dead_ms IS NOT NULL;

CREATE INDEX group_offsets_by_partition ON group_offsets (topic_id, partition, group_id);

ALTER TABLE consumer_groups ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- topics: a JSON list of names, by name.
CREATE TABLE group_members (
    group_id   INTEGER NOT NULL REFERENCES consumer_groups (id),
    member     TEXT    NOT NULL,
    topics     TEXT    NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (group_id, member)
) STRICT, WITHOUT ROWID;

-- A claim goes with its member.
CREATE TABLE group_claims (
    group_id   INTEGER NOT NULL,
    topic_id   INTEGER NOT NULL,
    partition  INTEGER NOT NULL,
    member     TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition),
    FOREIGN KEY (group_id, member) REFERENCES group_members (group_id, member) ON DELETE CASCADE,
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_claims_by_member ON group_claims (group_id, member);

-- What one agent does for all.
CREATE TABLE duties (
    name       TEXT    NOT NULL PRIMARY KEY,
    agent_id   INTEGER NOT NULL REFERENCES agents (id),
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
