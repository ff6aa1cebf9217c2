-- Which groups read a partition: also those that have committed nothing yet are behind on it.
CREATE INDEX group_claims_by_partition ON group_claims (topic_id, partition, group_id);

-- At least every epoch that a partition of a deleted topic has reached: those of new topics begin there, so that who holds a
-- lease of the old one never holds one of a new one of its name (invariant 1).
INSERT INTO counters (name, value) VALUES ('topic_epoch', 0);

-- Topics that are gone, whose ranges and windows upkeep has not removed yet: there may be millions. Nothing finds those by a
-- name any more. Whatever else names a partition goes with its topic.
CREATE TABLE deleted_topics (
    topic_id BIGINT NOT NULL PRIMARY KEY
);
