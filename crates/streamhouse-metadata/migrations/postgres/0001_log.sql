-- Names are mapped to short integers once; every other table keys by those. Names sort by their bytes.
CREATE TABLE topics (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            TEXT COLLATE "C" NOT NULL UNIQUE,
    partitions      BIGINT NOT NULL CHECK (partitions > 0),
    retention_ms    BIGINT CHECK (retention_ms > 0),
    retention_bytes BIGINT CHECK (retention_bytes > 0),
    created_ms      BIGINT NOT NULL
);

CREATE TABLE agents (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         TEXT COLLATE "C" NOT NULL UNIQUE,
    address      TEXT NOT NULL,
    heartbeat_ms BIGINT NOT NULL
);

-- A partition's lease is part of its row, so that one lock covers the lease and the high watermark. A partition without a
-- lease has expires_ms 0. `bytes` are those of its batches from the log start on.
--
-- Partitions are never removed, so what names one does without a foreign key, whose check would lock the row once more.
-- Rows are rewritten with every flush: the space left in each page keeps the new versions there, off the indexes.
CREATE TABLE partitions (
    topic_id       BIGINT NOT NULL REFERENCES topics (id),
    partition      BIGINT NOT NULL,
    log_start      BIGINT NOT NULL DEFAULT 0,
    high_watermark BIGINT NOT NULL DEFAULT 0 CHECK (high_watermark >= log_start),
    bytes          BIGINT NOT NULL DEFAULT 0,
    epoch          BIGINT NOT NULL DEFAULT 0,
    agent_id       BIGINT REFERENCES agents (id),
    expires_ms     BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);

-- The duplicate check's window. batches: [[base_sequence, records, base_offset], ...], oldest first.
CREATE TABLE producers (
    topic_id    BIGINT NOT NULL,
    partition   BIGINT NOT NULL,
    producer_id BIGINT NOT NULL,
    epoch       BIGINT NOT NULL,
    batches     TEXT   NOT NULL,
    updated_ms  BIGINT NOT NULL,
    PRIMARY KEY (topic_id, partition, producer_id, epoch)
) WITH (fillfactor = 50);

-- Every flush that was committed, also one whose every range was fenced: an unknown outcome is resolved by its id.
-- dead_ms: since when it has no range; null while it has one.
CREATE TABLE segments (
    seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           BYTEA  NOT NULL UNIQUE CHECK (length(id) = 16),
    object       TEXT   NOT NULL,
    object_bytes BIGINT NOT NULL,
    agent        TEXT   NOT NULL,
    committed_ms BIGINT NOT NULL,
    live_ranges  BIGINT NOT NULL CHECK (live_ranges >= 0),
    dead_ms      BIGINT
);

CREATE INDEX segments_dead ON segments (dead_ms) WHERE dead_ms IS NOT NULL;

-- What can be read: only the ranges that stood, from the log start on.
CREATE TABLE segment_ranges (
    topic_id       BIGINT NOT NULL,
    partition      BIGINT NOT NULL,
    base_offset    BIGINT NOT NULL,
    end_offset     BIGINT NOT NULL CHECK (end_offset > base_offset),
    segment        BIGINT NOT NULL,
    position       BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,
    index_position BIGINT NOT NULL,
    index_bytes    BIGINT NOT NULL,
    PRIMARY KEY (topic_id, partition, base_offset)
);

CREATE TABLE consumer_groups (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL UNIQUE,
    generation BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE group_offsets (
    group_id  BIGINT NOT NULL REFERENCES consumer_groups (id),
    topic_id  BIGINT NOT NULL,
    partition BIGINT NOT NULL,
    committed BIGINT NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition)
) WITH (fillfactor = 50);

CREATE INDEX group_offsets_by_partition ON group_offsets (topic_id, partition, group_id);

-- topics: a JSON list of names, by name.
CREATE TABLE group_members (
    group_id   BIGINT NOT NULL REFERENCES consumer_groups (id),
    member     TEXT COLLATE "C" NOT NULL,
    topics     TEXT   NOT NULL,
    expires_ms BIGINT NOT NULL,
    PRIMARY KEY (group_id, member)
);

-- A claim goes with its member.
CREATE TABLE group_claims (
    group_id   BIGINT NOT NULL,
    topic_id   BIGINT NOT NULL,
    partition  BIGINT NOT NULL,
    member     TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    PRIMARY KEY (group_id, topic_id, partition),
    FOREIGN KEY (group_id, member) REFERENCES group_members (group_id, member) ON DELETE CASCADE
);

CREATE INDEX group_claims_by_member ON group_claims (group_id, member);

-- What one agent does for all. A duty that nobody has ends at 0.
CREATE TABLE duties (
    name       TEXT   NOT NULL PRIMARY KEY,
    agent_id   BIGINT REFERENCES agents (id),
    expires_ms BIGINT NOT NULL
);

INSERT INTO duties (name, expires_ms) VALUES ('upkeep', 0);

-- A row and no sequence: after a crash a sequence may give once more what it gave to who did not write.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value) VALUES ('producer_id', 0);
