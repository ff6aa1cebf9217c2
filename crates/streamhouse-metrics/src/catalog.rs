//! Every metric. Names, types and meanings as operators know them: dashboards and alerts are written against them.

use crate::Label::{
    Group, Host, InstanceId, Map, Method, Mountpoint, Operation, Partition, Reason, Role, State, Status,
    Topic, Version,
};
use crate::{Kind, Label, Metric, Unit};

/// Declares each metric as a static of its own, with its help as documentation, and [`ALL`] beside them, so that no
/// metric can be missing there.
macro_rules! catalog {
    ($($id:ident = $kind:ident $name:literal, $unit:ident, [$($label:expr),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: Unit::$unit,
                help: $help,
                labels: const { &[$($label),*] as &[Label] },
            };
        )*

        /// Every metric, in the order of this file.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

catalog! {
    PRODUCER_RECORDS_SENT = Counter "streamhouse_producer_records_sent_total", Records,
        [InstanceId, Topic, Partition],
        "Records acknowledged to the producer.";
    PRODUCER_BYTES_SENT = Counter "streamhouse_producer_bytes_sent_total", Bytes,
        [InstanceId, Topic, Partition],
        "Bytes of keys, values and headers acknowledged to the producer, before compression.";
    PRODUCER_SEND_ERRORS = Counter "streamhouse_producer_send_errors_total", Records,
        [InstanceId, Topic, Partition, Status],
        "Records whose delivery failed for good, by error kind.";
    PRODUCER_SEND_DURATION = Histogram "streamhouse_producer_send_duration_seconds", Seconds,
        [InstanceId, Topic],
        "Time from the call of send() to the record's acknowledgement, per acknowledged record.";
    PRODUCER_BATCH_FLUSH_DURATION = Histogram "streamhouse_producer_batch_flush_duration_seconds", Seconds,
        [InstanceId, Topic],
        "Time from sealing a batch to its acknowledgement, per acknowledged batch.";
    PRODUCER_BATCH_FLUSH_ERRORS = Counter "streamhouse_producer_batch_flush_errors_total", Count,
        [InstanceId, Topic, Status],
        "Batches that a produce request failed for, by error kind; each attempt counts.";
    PRODUCER_BATCH_SIZE_RECORDS = Histogram "streamhouse_producer_batch_size_records", Records,
        [InstanceId, Topic],
        "Records in an acknowledged batch.";
    PRODUCER_BATCH_SIZE_BYTES = Histogram "streamhouse_producer_batch_size_bytes", Bytes,
        [InstanceId, Topic],
        "Bytes of keys, values and headers in an acknowledged batch, before compression.";
    PRODUCER_PENDING_RECORDS = Gauge "streamhouse_producer_pending_records", Records,
        [InstanceId, Topic, Partition],
        "Records accepted by send() and not yet acknowledged or failed; 0 after the process was killed.";

    CONSUMER_RECORDS_CONSUMED = Counter "streamhouse_consumer_records_consumed_total", Records,
        [InstanceId, Group, Topic, Partition],
        "Records returned by poll().";
    CONSUMER_BYTES_CONSUMED = Counter "streamhouse_consumer_bytes_consumed_total", Bytes,
        [InstanceId, Group, Topic, Partition],
        "Bytes of keys, values and headers returned by poll(), after decompression.";
    CONSUMER_POLL_DURATION = Histogram "streamhouse_consumer_poll_duration_seconds", Seconds,
        [InstanceId, Group, Topic],
        "Time to fetch and decode the records of one partition in one poll(), without idle waiting.";
    CONSUMER_POLL_ERRORS = Counter "streamhouse_consumer_poll_errors_total", Count,
        [InstanceId, Group, Topic, Partition, Status],
        "Fetches of a partition in poll() that failed, by error kind.";
    CONSUMER_LAG_RECORDS = Gauge "streamhouse_consumer_lag_records", Records,
        [InstanceId, Group, Topic, Partition],
        "High watermark minus committed offset, as the consumer last saw them; ends with its claim or its process.";
    CONSUMER_LAG_SECONDS = Gauge "streamhouse_consumer_lag_seconds", Seconds,
        [InstanceId, Group, Topic, Partition],
        "Age of the first record that the group has not committed, 0 when there is none; ends with the consumer's claim or its process.";
    CONSUMER_LAST_COMMITTED_OFFSET = Gauge "streamhouse_consumer_last_committed_offset", Offset,
        [InstanceId, Group, Topic, Partition],
        "Offset that the group has committed: the next one to be consumed after a restart; the last one for 15 minutes after the process was killed, unless another tells of the partition.";
    CONSUMER_CURRENT_OFFSET = Gauge "streamhouse_consumer_current_offset", Offset,
        [InstanceId, Group, Topic, Partition],
        "Offset that the next poll() starts at; the last one for 15 minutes after the process was killed, unless another tells of the partition.";

    AGENT_RECORDS_WRITTEN = Counter "streamhouse_agent_records_written_total", Records,
        [InstanceId, Topic, Partition],
        "Records stored and committed by the agent.";
    AGENT_BYTES_WRITTEN = Counter "streamhouse_agent_bytes_written_total", Bytes,
        [InstanceId, Topic, Partition],
        "Bytes of keys, values and headers stored and committed by the agent, before compression.";
    AGENT_WRITE_LATENCY = Histogram "streamhouse_agent_write_latency_seconds", Seconds,
        [InstanceId, Topic],
        "Time from receiving a produce request to its batch being durable and committed, per batch.";
    AGENT_WRITE_ERRORS = Counter "streamhouse_agent_write_errors_total", Records,
        [InstanceId, Topic, Partition, Status],
        "Records that the agent answered with an error, by error kind.";
    AGENT_COMMIT_DURATION = Histogram "streamhouse_agent_commit_duration_seconds", Seconds,
        [InstanceId],
        "Time of the metadata transaction that commits a flush.";
    AGENT_COMMIT_ERRORS = Counter "streamhouse_agent_commit_errors_total", Count,
        [InstanceId, Status],
        "Metadata transactions of flushes that failed, by error kind.";
    AGENT_GRPC_REQUESTS = Counter "streamhouse_agent_grpc_requests_total", Count,
        [InstanceId, Method, Status],
        "gRPC requests that the agent has answered, by method and how they ended; a produce request whose batches were refused ended ok, and they are write errors.";
    AGENT_GRPC_REQUEST_DURATION = Histogram "streamhouse_agent_grpc_request_duration_seconds", Seconds,
        [InstanceId, Method],
        "Time from the start of a gRPC request's handler to its response, per request that succeeded.";
    AGENT_ACTIVE_PARTITIONS = Gauge "streamhouse_agent_active_partitions", Count,
        [InstanceId],
        "Partitions whose lease the agent holds; 0 after the process was killed.";
    AGENT_ACTIVE_CONNECTIONS = Gauge "streamhouse_agent_active_connections", Count,
        [InstanceId],
        "gRPC connections open; 0 after the process was killed.";
    AGENT_LEASE_RENEWALS = Counter "streamhouse_agent_lease_renewals_total", Count,
        [InstanceId],
        "Leases renewed.";
    AGENT_LEASE_LOSSES = Counter "streamhouse_agent_lease_losses_total", Count,
        [InstanceId],
        "Leases lost before they were given back: not renewed in time, or taken by another agent.";
    AGENT_LEASE_FENCINGS = Counter "streamhouse_agent_lease_fencings_total", Count,
        [InstanceId],
        "Partitions left out of a commit because another agent had their lease by then.";
    AGENT_UNFLUSHED_BYTES = Gauge "streamhouse_agent_unflushed_bytes", Bytes,
        [InstanceId],
        "Bytes of batches that were received and are neither committed nor refused; 0 after the process was killed.";
    AGENT_UNFLUSHED_AGE = Gauge "streamhouse_agent_unflushed_age_seconds", Seconds,
        [InstanceId],
        "Time since the oldest batch was received that is neither committed nor refused; 0 when there is none, or the process was killed.";
    AGENT_READY = Gauge "streamhouse_agent_ready", Count,
        [InstanceId],
        "1 while the agent answers 200 on /ready; 0 after the process was killed.";

    GROUP_LAG_RECORDS = Gauge "streamhouse_group_lag_records", Records,
        [InstanceId, Group, Topic, Partition],
        "High watermark minus the offset that the group has committed, told by the agent that leases the partition, also while nobody of the group runs.";
    GROUP_LAG_SECONDS = Gauge "streamhouse_group_lag_seconds", Seconds,
        [InstanceId, Group, Topic, Partition],
        "Age of the first record that the group has not committed, 0 when there is none; told by the agent that leases the partition, also while nobody of the group runs.";

    GROUP_COMMITTED_OFFSET = Gauge "streamhouse_group_committed_offset", Offset,
        [InstanceId, Group, Topic, Partition],
        "Offset that the group has committed, told by the agent that leases the partition.";

    OBJECT_STORE_OPERATIONS = Counter "streamhouse_object_store_operations_total", Count,
        [InstanceId, Operation, Status],
        "Object-store operations, by what they did and how they ended.";
    OBJECT_STORE_BYTES = Counter "streamhouse_object_store_bytes_total", Bytes,
        [InstanceId, Operation],
        "Bytes moved by object-store operations that succeeded.";
    OBJECT_STORE_DURATION = Histogram "streamhouse_object_store_duration_seconds", Seconds,
        [InstanceId, Operation],
        "Time of an object-store operation that succeeded.";

    PROCESS_UP = Gauge "streamhouse_process_up", Count,
        [Role, InstanceId],
        "1 while a process with this role and instance id runs, 0 for 15 minutes after.";

    HOST_CPU_BUSY = Counter "streamhouse_host_cpu_busy_seconds_total", Seconds,
        [Host],
        "Processor time that the host was not idle, of all its processors together.";
    HOST_CPUS = Gauge "streamhouse_host_cpus", Count,
        [Host],
        "Processors that are online.";
    HOST_MEMORY_TOTAL = Gauge "streamhouse_host_memory_total_bytes", Bytes,
        [Host],
        "Memory that the host has.";
    HOST_MEMORY_AVAILABLE = Gauge "streamhouse_host_memory_available_bytes", Bytes,
        [Host],
        "Memory that can be had without swapping, as the kernel estimates.";
    HOST_FILESYSTEM_SIZE = Gauge "streamhouse_host_filesystem_size_bytes", Bytes,
        [Host, Mountpoint],
        "Size of a file system on a disk that can be written.";
    HOST_FILESYSTEM_AVAILABLE = Gauge "streamhouse_host_filesystem_available_bytes", Bytes,
        [Host, Mountpoint],
        "What a user without privileges may still write there.";

    PROBE_TARGETS = Gauge "streamhouse_probe_targets", Count,
        [State],
        "Files with StreamHouse sites that running processes map: attached, or refused as a whole.";
    PROBE_TARGETS_FORGOTTEN = Counter "streamhouse_probe_targets_forgotten_total", Count,
        [],
        "Files refused that the probe no longer knows of, because too many are refused at one time.";
    PROBE_SITES = Gauge "streamhouse_probe_sites", Count,
        [State],
        "Sites in those files: attached or refused.";
    PROBE_SITES_REFUSED = Gauge "streamhouse_probe_sites_refused", Count,
        [Reason],
        "Sites that could not be attached, by reason; what they would have counted is missing.";
    PROBE_PROCESSES = Gauge "streamhouse_probe_processes", Count,
        [],
        "Running processes that are observed.";
    PROBE_SWEEP_AGE = Gauge "streamhouse_probe_last_sweep_age_seconds", Seconds,
        [],
        "Time since the probe has finished looking for new processes; large when it is stuck and finds none.";
    PROBE_MAP_ENTRIES = Gauge "streamhouse_probe_map_entries", Count,
        [Map],
        "Entries in a kernel map.";
    PROBE_MAP_CAPACITY = Gauge "streamhouse_probe_map_capacity", Count,
        [Map],
        "Entries that a kernel map has room for.";
    PROBE_HITS = Counter "streamhouse_probe_hits_total", Count,
        [],
        "Runs of the kernel program.";
    PROBE_HIT_COST = Gauge "streamhouse_probe_hit_cost_seconds", Seconds,
        [],
        "Processor time that one run of the kernel program takes of the observed process, trap included, as measured when the probe started.";
    PROBE_OVERHEAD = Counter "streamhouse_probe_overhead_seconds_total", Seconds,
        [],
        "Processor time that observation has taken of the observed processes: runs of the kernel program times the cost of one.";
    PROBE_REFUSED = Counter "streamhouse_probe_refused_total", Count,
        [Reason],
        "Hits, or parts of them, that the kernel program could not count, by reason.";
    PROBE_VALUES_HELD_BACK = Gauge "streamhouse_probe_values_held_back", Count,
        [],
        "Values counted and not served yet, because their labels could not be read; a later hit brings them.";
    PROBE_SERIES = Gauge "streamhouse_probe_series", Count,
        [],
        "Series of observed processes that are served, a classic histogram counted as all its buckets.";
    PROBE_SERIES_MAX = Gauge "streamhouse_probe_series_max", Count,
        [],
        "Series of observed processes that may be served.";
    PROBE_SERIES_REFUSED = Counter "streamhouse_probe_series_refused_total", Count,
        [],
        "Series that had no room; what they count is in the series with instance_id overflow, and gauges are left out.";
    PROBE_PAGES_READ = Counter "streamhouse_probe_pages_read_total", Count,
        [],
        "State pages copied and parsed.";
    PROBE_PAGES_REJECTED = Counter "streamhouse_probe_pages_rejected_total", Count,
        [Reason],
        "State pages, or slots in them, that were not believed, by reason.";
    PROBE_SCRAPES = Counter "streamhouse_probe_scrapes_total", Count,
        [],
        "Scrapes answered.";
    PROBE_SCRAPE_DURATION = Gauge "streamhouse_probe_scrape_duration_seconds", Seconds,
        [],
        "Time that the previous scrape took to collect and encode.";
    PROBE_SCRAPE_SIZE = Gauge "streamhouse_probe_scrape_size_bytes", Bytes,
        [],
        "Size of the page of the previous scrape, before compression.";
    PROBE_BUILD_INFO = Gauge "streamhouse_probe_build_info", Count,
        [Version],
        "Always 1; the label says which probe this is.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_valid_and_unique() {
        let mut seen = HashSet::new();
        for metric in ALL {
            assert!(metric.name.starts_with("streamhouse_"), "{}", metric.name);
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert!(seen.insert(metric.name), "{} twice", metric.name);
        }
    }

    #[test]
    fn suffixes_follow_type_and_unit() {
        for metric in ALL {
            let name = metric.name;
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            for reserved in ["_bucket", "_count", "_sum"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            if metric.kind == Kind::Histogram {
                assert!(name.ends_with(&format!("_{}", metric.unit.name())), "{name}");
            }
            if metric.unit == Unit::Seconds {
                assert!(name.trim_end_matches("_total").ends_with("_seconds"), "{name}");
            }
        }
    }

    #[test]
    fn helps_are_one_sentence_in_one_line() {
        for metric in ALL {
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!metric.help.contains(['\n', '\\']), "{}", metric.name);
        }
    }

    #[test]
    fn labels_are_ordered_and_histograms_have_no_partition() {
        for metric in ALL {
            assert!(metric.labels.is_sorted(), "{}", metric.name);
            if metric.kind == Kind::Histogram {
                assert!(!metric.labels.contains(&Partition), "{}", metric.name);
            }
        }
    }
}
