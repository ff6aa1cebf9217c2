//! Commands that need no agent: topics, groups, lag, and what users get wrong.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use serde_json::json;
use streamhouse_metadata::SqliteMetadataStore;
use support::{Log, stderr, wait_until};

#[test]
fn topics_are_created_listed_and_described() {
    let log = Log::new();
    assert_eq!(
        log.ok(&["topic", "create", "orders", "--partitions", "3"]),
        "created topic orders with 3 partitions\n"
    );
    assert_eq!(log.ok(&["topic", "create", "one"]), "created topic one with 1 partition\n");
    let created = log.json(&["topic", "create", "audit"]);
    assert_eq!((&created["name"], &created["partitions"]), (&json!("audit"), &json!(1)));

    assert_eq!(
        log.ok(&["topic", "list"]),
        "TOPIC   PARTITIONS\naudit            1\none              1\norders           3\n"
    );
    let list = log.json(&["topic", "list"]);
    let names: Vec<_> = list.as_array().unwrap().iter().map(|topic| &topic["name"]).collect();
    assert_eq!(names, ["audit", "one", "orders"]);

    let described = log.json(&["topic", "describe", "orders"]);
    assert_eq!(described["name"], "orders");
    let empty = |partition: u32| {
        json!({"partition": partition, "log_start": 0, "high_watermark": 0,
               "agent": null, "address": null, "epoch": null})
    };
    assert_eq!(described["partitions"], json!([empty(0), empty(1), empty(2)]));
    let table = log.ok(&["topic", "describe", "orders"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.ends_with("topic orders keeps records for ever\n"), "{table}");
}

#[test]
fn a_topic_is_deleted_when_that_is_meant() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders", "--partitions", "3"]);
    log.fails(&["topic", "delete", "orders"], &["orders has 3 partitions with 0 records", "--yes"]);
    assert_eq!(log.json(&["topic", "list"]).as_array().unwrap().len(), 1, "nothing was done");
    assert_eq!(
        log.ok(&["topic", "delete", "orders", "--yes"]),
        "deleted topic orders with 3 partitions and 0 records\n"
    );
    assert_eq!(log.json(&["topic", "list"]), json!([]));
    log.fails(&["topic", "delete", "orders", "--yes"], &["orders does not exist"]);
    log.ok(&["topic", "create", "orders"]);
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = log.command(&["topic", "list", "--log", "trace"]).stderr(full).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), log.ok(&["topic", "list"]));
}

#[test]
fn wrong_topics_are_refused_with_what_to_do() {
    let log = Log::new();
    let reading: [&[&str]; 6] = [
        &["topic", "list"],
        &["topic", "describe", "orders"],
        &["groups", "list"],
        &["groups", "describe", "g"],
        &["lag"],
        &["consume", "orders", "--group", "g"],
    ];
    for command in reading {
        log.fails(command, &["there is no metadata store at", "--metadata-path", "topic create"]);
    }
    assert_eq!(std::fs::read_dir(log.path("")).unwrap().count(), 0, "looking leaves nothing behind");
    log.ok(&["topic", "create", "orders"]);
    log.fails(&["topic", "create", "orders"], &["orders exists already"]);
    log.fails(&["topic", "create", "a/b"], &["\"a/b\"", "1 to 249 characters"]);
    log.fails(&["topic", "create", "none", "--partitions", "0"], &["partition"]);
    log.fails(&["topic", "describe", "missing"], &["missing does not exist", "streamhouse topic create"]);
    log.fails(&["produce", "missing", "--generate", "1"], &["missing does not exist"]);
    log.fails(&["produce", "orders", "--partition", "1", "--generate", "1"], &["partition 1", "1 partition"]);
    log.fails(&["consume", "orders", "--group", "g"], &["no object store in", "--object-store-path"]);
    assert!(!log.path("objects").exists());
    log.make_objects();
    log.fails(&["consume", "missing", "--group", "g"], &["missing does not exist"]);
    log.fails(&["consume", "orders", "--group", "a b"], &["invalid group id"]);
}

#[test]
fn whoever_may_only_read_can_look() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders"]);
    log.ok(&["groups", "reset-offsets", "g", "--topic", "orders", "--to", "earliest"]);
    // As an agent does: SQLite lets nobody read a file alone who may not write beside it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let agents = runtime.block_on(SqliteMetadataStore::new(log.path("metadata.db"))).unwrap();
    log.write_protect();
    let looks: [(&[&str], &str); 6] = [
        (&["topic", "list"], "orders"),
        (&["topic", "describe", "orders"], "orders"),
        (&["groups", "list"], "g "),
        (&["groups", "describe", "g"], "orders"),
        (&["groups", "reset-offsets", "g", "--topic", "orders", "--to", "latest", "--dry-run"], "dry run"),
        (&["lag"], "orders"),
    ];
    for (look, shows) in looks {
        let output = log.without_override(look);
        assert!(output.status.success(), "{look:?}: {}", stderr(&output));
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(shown.contains(shows), "{look:?}: {shown}");
    }
    let refused = log.without_override(&["topic", "create", "more"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("cannot be written; make the file"), "{}", stderr(&refused));
    runtime.block_on(agents.close());
    let alone = log.without_override(&["topic", "list"]);
    assert!(stderr(&alone).contains("start an agent on it"), "{}", stderr(&alone));
}

#[test]
fn paths_that_are_no_log_are_refused_with_what_to_do() {
    let log = Log::new();
    std::fs::write(log.path("text"), "hello").unwrap();
    let text = log.path("text");
    let directory = log.path("");
    let cases = [
        ("/dev/null", "is not a regular file; give the path of one"),
        (directory.to_str().unwrap(), "is a directory; give the path of a file in it"),
        (text.to_str().unwrap(), "is not a StreamHouse metadata file; give another path"),
    ];
    for (path, says) in cases {
        for command in [&["lag"][..], &["topic", "create", "orders"]] {
            log.fails(&[command, &["--metadata-path", path]].concat(), &[path, says]);
        }
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_before_the_first_record() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders"]);
    let missing = log.path("missing/file");
    let missing = missing.to_str().unwrap();
    log.fails(&["produce", "orders", "--file", missing], &[missing, "cannot be read"]);
    let directory = log.path("");
    log.fails(&["produce", "orders", "--file", directory.to_str().unwrap()], &["is a directory"]);
    log.fails(
        &["produce", "orders", "--generate", "1", "--report", missing],
        &[missing, "cannot be written"],
    );
    log.fails(&["produce", "orders", "--generate", "1", "--size", "2MiB"], &["2097152 bytes", "--size"]);
}

#[test]
fn a_failure_is_said_when_it_is_met_and_at_the_end() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders", "--partitions", "2"]);
    let produce =
        ["produce", "orders", "--generate", "10", "--batch-records", "1", "--delivery-timeout", "100ms"];
    let output = log.command(&produce).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("not acknowledged within 100ms").count(), 2, "{said}");
    assert!(said.contains("10 records failed: 10 unavailable"), "{said}");
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let log = Log::new();
    let usages: [&[&str]; 7] = [
        &[],
        &["topic"],
        &["consume", "orders"],
        &["produce", "orders", "--rate", "0"],
        &["produce", "orders", "--repeat"],
        &["produce", "orders", "--generate", "1", "--linger", "5"],
        &["groups", "reset-offsets", "g", "--topic", "orders", "--to", "somewhere"],
    ];
    for arguments in usages {
        let output = log.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn negative_numbers_are_refused_as_what_they_are() {
    let log = Log::new();
    let usages: [&[&str]; 4] = [
        &["topic", "create", "orders", "--partitions", "-1"],
        &["produce", "orders", "--generate", "-1"],
        &["produce", "orders", "--seconds", "-0.5"],
        &["groups", "reset-offsets", "g", "--topic", "orders", "--to", "-1"],
    ];
    for arguments in usages {
        let output = log.command(arguments).output().unwrap();
        let flag = arguments[arguments.len() - 2];
        assert!(stderr(&output).contains(&format!("for '{flag}")), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders"]);
    log.make_objects();
    let report = log.path("report.json");
    let mut command = log.command(&["consume", "orders", "--group", "g", "--start-gate", "shut", "--report"]);
    let child = command.arg(&report).spawn().unwrap();
    // Signals are handled before the report is opened.
    wait_until("the report to be opened", || report.exists());
    let pid = rustix::process::Pid::from_child(&child);
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let _ = rustix::process::kill_process(pid, signal);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_groups_members_are_shown_and_what_they_read_is_not_moved() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders", "--partitions", "2"]);
    log.make_objects();
    let consumer = log.command(&["consume", "orders", "--group", "billing"]).spawn().unwrap();
    let both = json!(["orders/0", "orders/1"]);
    wait_until("the consumer to claim the partitions", || {
        let groups = log.json(&["groups", "list"]);
        groups != json!([])
            && log.json(&["groups", "describe", "billing"])["members"][0]["partitions"] == both
    });
    assert!(log.ok(&["groups", "describe", "billing"]).contains("orders/0,orders/1"));
    let reset = ["groups", "reset-offsets", "billing", "--topic", "orders", "--to", "earliest"];
    log.fails(&reset, &["orders/0 is read by member", "stop the group's consumers"]);

    let pid = rustix::process::Pid::from_child(&consumer);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = consumer.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(log.json(&["groups", "describe", "billing"])["members"], json!([]), "it left");
    log.ok(&reset);
}

#[test]
fn groups_are_moved_within_what_can_be_read() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders", "--partitions", "2"]);
    assert_eq!(log.json(&["groups", "list"]), json!([]));
    assert_eq!(log.json(&["lag"]), json!([]));
    log.fails(&["groups", "describe", "billing"], &["group billing does not exist"]);
    log.fails(&["lag", "--group", "billing"], &["group billing does not exist"]);

    let reset = |more: &[&'static str]| [&["groups", "reset-offsets", "billing", "--topic"], more].concat();
    log.fails(&reset(&["missing", "--to", "latest"]), &["missing does not exist"]);
    log.fails(&reset(&["orders", "--to", "7"]), &["offset 7 is outside of orders/0", "from 0 to 0"]);
    log.fails(&reset(&["orders", "--to", "latest", "--partition", "2"]), &["partition 2", "2 partitions"]);
    let dry = log.ok(&reset(&["orders", "--to", "latest", "--dry-run"]));
    assert!(dry.ends_with("dry run: nothing was changed\n"), "{dry}");
    assert_eq!(log.json(&["groups", "list"]), json!([]));

    let moved = log.json(&reset(&["orders", "--to", "earliest", "--partition", "1"]));
    let row = json!({"group": "billing", "topic": "orders", "partition": 1, "from": null, "to": 0, "dry_run": false});
    assert_eq!(moved, json!([row]));
    assert_eq!(
        log.json(&["groups", "list"]),
        json!([{"group": "billing", "partitions": 1, "lag_records": 0}])
    );
    let lag = json!([{"group": "billing", "topic": "orders", "partition": 1, "committed": 0, "log_start": 0,
                      "high_watermark": 0, "lag_records": 0, "lag_seconds": 0.0}]);
    let described = json!({"group": "billing", "members": [], "offsets": lag});
    assert_eq!(log.json(&["groups", "describe", "billing"]), described);
    assert_eq!(log.json(&["lag", "--group", "billing"]), lag);
    assert_eq!(log.json(&["lag"]), lag);
    assert!(log.ok(&["lag"]).starts_with("GROUP    TOPIC   PARTITION  COMMITTED"));
}
