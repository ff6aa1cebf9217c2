-- How far a group is: null until it commits something. It is there from the first claim on, for whoever has committed
-- nothing yet is behind too, also when nobody of it reads any more.
CREATE TABLE group_places (
    group_id  INTEGER NOT NULL REFERENCES consumer_groups (id),
    topic_id  INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    committed INTEGER,
    PRIMARY KEY (group_id, topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

INSERT INTO group_places SELECT * FROM group_offsets;
INSERT INTO group_places SELECT group_id, topic_id, partition, NULL FROM group_claims WHERE true ON CONFLICT DO NOTHING;
DROP TABLE group_offsets;
ALTER TABLE group_places RENAME TO group_offsets;
CREATE INDEX group_offsets_by_partition ON group_offsets (topic_id, partition, group_id);

-- At least every epoch that a partition of a deleted topic has reached: those of new topics begin there, so that who holds a
-- lease of the old one never holds one of a new one of its name (invariant 1).
INSERT INTO counters (name, value) VALUES ('topic_epoch', 0);

-- Topics that are gone, whose ranges and windows upkeep has not removed yet: there may be millions. Nothing finds those by a
-- name any more, and no other topic gets the id before. Whatever else names a partition goes with its topic.
CREATE TABLE deleted_topics (
    topic_id INTEGER PRIMARY KEY
) STRICT;

-- As they were, but without the reference to their partition, which they outlive by a while.
CREATE TABLE live_producers (
    topic_id    INTEGER NOT NULL,
    partition   INTEGER NOT NULL,
    producer_id INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    batches     TEXT    NOT NULL,
    updated_ms  INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, producer_id, epoch)
) STRICT, WITHOUT ROWID;

INSERT INTO live_producers SELECT * FROM producers;
DROP TABLE producers;
ALTER TABLE live_producers RENAME TO producers;

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
    PRIMARY KEY (topic_id, partition, base_offset)
) STRICT, WITHOUT ROWID;

INSERT INTO live_segment_ranges SELECT * FROM segment_ranges;
DROP TABLE segment_ranges;
ALTER TABLE live_segment_ranges RENAME TO segment_ranges;
