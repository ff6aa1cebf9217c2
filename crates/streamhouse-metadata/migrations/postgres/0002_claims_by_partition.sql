-- Which groups read a partition: also those that have committed nothing yet are behind on it.
CREATE INDEX group_claims_by_partition ON group_claims (topic_id, partition, group_id);
