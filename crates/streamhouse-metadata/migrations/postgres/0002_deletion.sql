-- How far a group is: null until it commits something. It is there from the first claim on, for whoever has committed
-- nothing yet is behind too, also when nobody of it reads any more.
ALTER TABLE group_offsets ALTER COLUMN committed DROP NOT NULL;

INSERT INTO group_offsets (group_id, topic_id, partition)
SELECT group_id, topic_id, partition FROM group_claims
ON CONFLICT (group_id, topic_id, partition) DO NOTHING;

-- At least every epoch that a partition of a deleted topic has reached: those of new topics begin there, so that who holds a
-- lease of the old one never holds one of a new one of its name (invariant 1).
INSERT INTO counters (name, value) VALUES ('topic_epoch', 0);

-- Topics that are gone, whose ranges and windows upkeep has not removed yet: there may be millions. Nothing finds those by a
-- name any more. Whatever else names a partition goes with its topic.
CREATE TABLE deleted_topics (
    topic_id BIGINT NOT NULL PRIMARY KEY
);
