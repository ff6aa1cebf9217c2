//! Produce and consume through an agent that runs inside the test.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Child, Stdio};
use streamhouse_agent::{Agent, Config, Flags};
use support::{Log, report, stderr, wait_until};

/// A log and the agent that writes it.
struct Running {
    log: Log,
    agent: Option<Agent>,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    /// With these topics and their partitions.
    fn new(topics: &[(&str, &str)]) -> Running {
        let log = Log::new();
        for (topic, partitions) in topics {
            log.ok(&["topic", "create", topic, "--partitions", partitions]);
        }
        let (metadata, objects) = (log.path("metadata.db"), log.path("objects"));
        let flags = Flags::parse_from([
            "streamhouse-agent",
            "--agent-id=agent",
            "--grpc-listen-address=127.0.0.1:0",
            "--http-listen-address=127.0.0.1:0",
            &format!("--metadata-path={}", metadata.display()),
            &format!("--object-store-path={}", objects.display()),
        ]);
        let config = Config::try_from(flags).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let agent = runtime.block_on(Agent::start(config)).unwrap();
        Running { log, agent: Some(agent), runtime }
    }

    /// Produces and gives the report.
    fn produce(&self, arguments: &[&str]) -> Value {
        self.reported("produce", arguments)
    }

    /// Consumes without printing and gives the report.
    fn consume(&self, arguments: &[&str]) -> Value {
        self.reported("consume", &[arguments, &["--quiet"]].concat())
    }

    fn reported(&self, command: &str, arguments: &[&str]) -> Value {
        let path = self.log.path(&format!("{command}.json"));
        self.log.ok(&[&[command], arguments, &["--report", path.to_str().unwrap()]].concat());
        report(&path)
    }

    /// Lines of a consume run with `--json`.
    fn read(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.log.ok(&[&["consume"], arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.runtime.block_on(agent.shutdown());
        }
    }
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

#[test]
fn lines_come_back_in_order_with_their_keys() {
    let running = Running::new(&[("orders", "1")]);
    let file = running.log.path("lines");
    std::fs::write(&file, b"a=1\nplain\n\xff=\xfe\n\na=2").unwrap();
    let file = file.to_str().unwrap();
    let produced = running.produce(&["orders", "--file", file, "--key-separator", "="]);
    assert_eq!((&produced["records"], &produced["bytes"]), (&json!(5), &json!(2 + 5 + 2 + 2)));

    let lines = running.read(&["orders", "--group", "g", "--max-records", "5"]);
    let keys_and_values: Vec<_> = lines.iter().map(|line| (&line["key"], &line["value"])).collect();
    assert_eq!(
        keys_and_values,
        [
            (&json!("a"), &json!("1")),
            (&json!(null), &json!("plain")),
            (&json!("/w=="), &json!("/g==")),
            (&json!(null), &json!("")),
            (&json!("a"), &json!("2")),
        ]
    );
    assert_eq!(
        (&lines[2]["key_encoding"], &lines[2]["value_encoding"]),
        (&json!("base64"), &json!("base64"))
    );
    let offsets: Vec<_> = lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);

    // The group resumes behind what it has read; another begins at the first record.
    let plain = ["orders", "--key-separator", ":", "--idle-exit", "0.5"];
    assert_eq!(running.log.ok(&[&["consume", "--group", "g"], &plain[..]].concat()), "");
    let other = running.log.command(&[&["consume", "--group", "h"], &plain[..]].concat()).output().unwrap();
    assert_eq!(other.stdout, b"a:1\nplain\n\xff:\xfe\n\na:2\n");
}

#[test]
fn the_reports_of_both_sides_agree() {
    let running = Running::new(&[("load", "3")]);
    let produced = running.produce(&[
        "load",
        "--generate",
        "20000",
        "--size",
        "50",
        "--keys",
        "100",
        "--compression",
        "lz4",
    ]);
    assert_eq!(produced["errors"], 0);
    assert_eq!((&produced["records"], &produced["bytes"]), (&json!(20_000), &json!(20_000 * (50 + 12))));
    let binned = produced["latency_buckets"].as_object().unwrap().values();
    assert_eq!(binned.map(|count| count.as_u64().unwrap()).sum::<u64>(), 20_000);

    let consumed = running.consume(&["load", "--group", "g", "--max-records", "20000"]);
    for field in ["records", "bytes"] {
        assert_eq!(consumed[field], produced[field]);
        for partition in ["0", "1", "2"] {
            let of = |report: &Value| report["topics"]["load"]["partitions"][partition][field].clone();
            assert!(of(&produced).as_u64().unwrap() > 0, "keys should reach every partition: {produced}");
            assert_eq!(of(&consumed), of(&produced), "{field} of partition {partition}");
        }
    }
    let described = running.log.json(&["topic", "describe", "load"]);
    let watermarks = described["partitions"].as_array().unwrap().iter();
    assert_eq!(watermarks.map(|row| row["high_watermark"].as_u64().unwrap()).sum::<u64>(), 20_000);
    let lag = running.log.json(&["lag", "--group", "g"]);
    assert!(lag.as_array().unwrap().iter().all(|row| row["lag_records"] == 0), "{lag}");
}

#[test]
fn a_limit_and_a_reset_are_exact() {
    let running = Running::new(&[("load", "1")]);
    running.produce(&["load", "--generate", "100", "--seed", "5"]);
    let offsets = |arguments: &[&str]| -> Vec<u64> {
        let common = ["load", "--group", "g", "--idle-exit", "0.5"];
        let lines = running.read(&[&common[..], arguments].concat());
        lines.iter().map(|line| line["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(offsets(&["--max-records", "7"]), (0..7).collect::<Vec<_>>());
    assert_eq!(offsets(&["--max-records", "5", "--no-commit"]), (7..12).collect::<Vec<_>>());
    assert_eq!(offsets(&[]), (7..100).collect::<Vec<_>>());
    running.log.ok(&["groups", "reset-offsets", "g", "--topic", "load", "--to", "98"]);
    assert_eq!(running.log.json(&["lag"])[0]["lag_records"], 2);
    assert_eq!(offsets(&["--commit-every", "1"]), [98, 99]);
    running.log.ok(&["groups", "reset-offsets", "g", "--topic", "load", "--to", "earliest"]);
    assert_eq!(running.log.json(&["lag"])[0]["lag_records"], 100);
    running.log.fails(
        &["groups", "reset-offsets", "g", "--topic", "load", "--to", "101"],
        &["offset 101 is outside of load/0", "from 0 to 100"],
    );
}

#[test]
fn a_gate_starts_and_a_signal_ends_both_sides_in_order() {
    let running = Running::new(&[("load", "2")]);
    let (gate, sent, got) = (running.log.path("gate"), running.log.path("sent"), running.log.path("got"));
    let start = |arguments: &[&str], path: &std::path::Path| {
        let mut command = running.log.command(arguments);
        command.arg("--start-gate").arg(&gate).arg("--report").arg(path).spawn().unwrap()
    };
    let producer = start(&["produce", "load", "--generate", "--rate", "2000", "--linger", "0"], &sent);
    let consumer = start(&["consume", "load", "--group", "g", "--quiet", "--commit-every", "50ms"], &got);
    // Reports are made when all is ready, before the gate.
    wait_until("both to be ready", || sent.exists() && got.exists());
    std::fs::write(&gate, "").unwrap();
    let committed = || -> u64 {
        let lag = running.log.command(&["lag", "--group", "g", "--json"]).output().unwrap();
        let rows: Value = serde_json::from_slice(&lag.stdout).unwrap_or_default();
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["committed"].as_u64()).sum()
    };
    wait_until("the group to have read something", || committed() > 100);
    terminate(&producer);
    let producer = producer.wait_with_output().unwrap();
    assert!(producer.status.success(), "{}", stderr(&producer));
    let records = report(&sent)["records"].as_u64().unwrap();
    wait_until("the group to have read all", || committed() == records);
    terminate(&consumer);
    let consumer = consumer.wait_with_output().unwrap();
    assert!(consumer.status.success(), "{}", stderr(&consumer));
    let got = report(&got);
    assert_eq!((&got["records"], &got["bytes"]), (&json!(records), &json!(records * 100)));
}

/// CRC-32C, bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Finds the object that holds `text`, and changes what it begins with: one batch.
fn change_batch(running: &Running, text: &[u8], change: impl Fn(&mut [u8])) {
    let segments = std::fs::read_dir(running.log.path("objects/segments")).unwrap();
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let mut found = segments.map(|entry| entry.unwrap().path());
    let path = found.find(|path| holds(&std::fs::read(path).unwrap())).unwrap();
    let mut object = std::fs::read(&path).unwrap();
    let length = 12 + u32::from_be_bytes(object[8..12].try_into().unwrap()) as usize;
    change(&mut object[..length]);
    std::fs::write(&path, object).unwrap();
}

/// What a producer with a defect may send: the first record says that it is another, under a right checksum.
fn malform(batch: &mut [u8]) {
    // Behind the header: length, attributes, timestamp delta, offset delta.
    assert_eq!(batch[64], 0, "the first record's offset delta");
    batch[64] = 8;
    let crc = checksum(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn what_cannot_be_read_is_said_once_and_the_other_partitions_are_read() {
    let running = Running::new(&[("orders", "3")]);
    for (partition, line) in [("0", "junk"), ("0", "behind"), ("1", "torn"), ("2", "fine")] {
        let file = running.log.path("lines");
        std::fs::write(&file, format!("{line}\n")).unwrap();
        running.produce(&["orders", "--file", file.to_str().unwrap(), "--partition", partition]);
    }
    change_batch(&running, b"junk", malform);
    change_batch(&running, b"torn", |batch| batch[68] ^= 1);
    let consume = |group: &str| {
        let arguments = ["consume", "orders", "--group", group, "--idle-exit", "1", "--report"];
        let mut command = running.log.command(&arguments);
        command.arg(running.log.path("read")).output().unwrap()
    };
    let output = consume("g");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(output.stdout, b"fine\n");
    assert_eq!(report(&running.log.path("read"))["records"], 1);
    assert!(said.contains("1 record ("), "{said}");
    for (text, times) in [
        ("the producer that wrote it has a defect", 1),
        ("restore it from a copy", 1),
        ("groups reset-offsets g --topic orders --partition 0 --to 1`", 1),
        ("groups reset-offsets g --topic orders --partition 1 --to 1`", 1),
        ("error: 2 partitions could not be read on: orders/0 stands at offset 0", 1),
    ] {
        assert_eq!(said.matches(text).count(), times, "{text:?} in {said}");
    }

    // What the error tells to do is what helps.
    for partition in ["0", "1"] {
        let reset =
            ["groups", "reset-offsets", "g", "--topic", "orders", "--to", "1", "--partition", partition];
        running.log.ok(&reset);
    }
    let output = consume("g");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, b"behind\n");
}

#[test]
fn a_run_ends_when_no_partition_can_be_read() {
    let running = Running::new(&[("orders", "1")]);
    let file = running.log.path("lines");
    std::fs::write(&file, "junk\n").unwrap();
    running.produce(&["orders", "--file", file.to_str().unwrap()]);
    change_batch(&running, b"junk", malform);
    running
        .log
        .fails(&["consume", "orders", "--group", "g"], &["1 partition could not be read on", "--to 1`"]);
}

#[test]
fn standard_input_is_sent_as_it_comes() {
    let running = Running::new(&[("lines", "1")]);
    let mut producer =
        running.log.command(&["produce", "lines", "--json"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"first\n").unwrap();
    let written =
        || running.log.json(&["topic", "describe", "lines"])["partitions"][0]["high_watermark"].clone();
    wait_until("the first line to be stored while the input is open", || written() == 1);
    input.write_all(b"second\n").unwrap();
    drop(input);
    let output = producer.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["records"], &summary["bytes"]), (&json!(2), &json!(11)));
    assert_eq!(
        running.log.ok(&["consume", "lines", "--group", "g", "--max-records", "2"]),
        "first\nsecond\n"
    );
}

#[test]
fn a_file_is_repeated_until_the_limit() {
    let running = Running::new(&[("lines", "1")]);
    let file = running.log.path("lines");
    std::fs::write(&file, "a\nb\nc\n").unwrap();
    running.produce(&["lines", "--file", file.to_str().unwrap(), "--repeat", "--records", "7"]);
    let text = running.log.ok(&["consume", "lines", "--group", "g", "--max-records", "7"]);
    assert_eq!(text, "a\nb\nc\na\nb\nc\na\n");
    // Who closes standard output early ends the run, and commits nothing that was not seen.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut consumer = running.log.command(&["consume", "lines", "--group", "early"]);
    let consumer = consumer.stdout(writer).spawn().unwrap().wait_with_output().unwrap();
    assert!(consumer.status.success(), "{}", stderr(&consumer));
    let described = running.log.json(&["groups", "describe", "early"]);
    let offset = &described["offsets"][0];
    assert_eq!((&described["members"], &offset["committed"]), (&json!([]), &json!(null)));
    assert_eq!(offset["lag_records"], 7, "who has committed nothing is behind by all there is");
}

#[test]
fn records_that_fail_are_counted_and_end_with_status_1() {
    let log = Log::new();
    log.ok(&["topic", "create", "orders"]);
    let path = log.path("report");
    log.fails(
        &[
            "produce",
            "orders",
            "--generate",
            "10",
            "--delivery-timeout",
            "300ms",
            "--report",
            path.to_str().unwrap(),
        ],
        &["10 records failed", "10 unavailable", "not acknowledged within 300ms"],
    );
    let report = report(&path);
    assert_eq!((&report["records"], &report["errors"]), (&json!(0), &json!(10)));
    assert_eq!(report["errors_by_kind"], json!({"unavailable": 10}));
}
