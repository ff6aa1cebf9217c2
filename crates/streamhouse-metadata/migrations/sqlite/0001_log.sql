-- "SHM1": how `new` tells this file from another program's.
PRAGMA application_id = 0x53484d31;

-- Names are mapped to short integers once; every other table keys by those.
CREATE TABLE topics (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    partitions INTEGER NOT NULL CHECK (partitions > 0),
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    address      TEXT    NOT NULL,
    heartbeat_ms INTEGER NOT NULL
) STRICT;

-- A partition's lease is part of its row, so that one statement checks the lease and moves the high watermark.
-- A partition without a lease has expires_ms 0.
CREATE TABLE partitions (
    topic_id       INTEGER NOT NULL REFERENCES topics (id),
    partition      INTEGER NOT NULL,
    log_start      INTEGER NOT NULL DEFAULT 0,
    high_watermark INTEGER NOT NULL DEFAULT 0 CHECK (high_watermark >= log_start),
    epoch          INTEGER NOT NULL DEFAULT 0,
    agent_id       INTEGER REFERENCES agents (id),
    expires_ms     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, partition)
) STRICT, WITHOUT ROWID;

-- The duplicate check's window. batches: [[base_sequence, records, base_offset], ...], oldest first.
CREATE TABLE producers (
    topic_id    INTEGER NOT NULL,
    partition   INTEGER NOT NULL,
    producer_id INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    batches     TEXT    NOT NULL,
    updated_ms  INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, producer_id, epoch),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

-- Every flush that was committed, also one whose every range was fenced: an unknown outcome is resolved by its id.
CREATE TABLE segments (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    object       TEXT    NOT NULL,
    object_bytes INTEGER NOT NULL,
    agent        TEXT    NOT NULL,
    committed_ms INTEGER NOT NULL
) STRICT;

-- What can be read: only the ranges that stood.
CREATE TABLE segment_ranges (
    topic_id       INTEGER NOT NULL,
    partition      INTEGER NOT NULL,
    base_offset    INTEGER NOT NULL,
    end_offset     INTEGER NOT NULL CHECK (end_offset > base_offset),
    segment        INTEGER NOT NULL REFERENCES segments (seq),
    position       INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    index_position INTEGER NOT NULL,
    index_bytes    INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition, base_offset),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumer_groups (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE group_offsets (
    group_id  INTEGER NOT NULL REFERENCES consumer_groups (id),
    topic_id  INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition),
    FOREIGN KEY (topic_id, partition) REFERENCES partitions (topic_id, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('producer_id', 0);
