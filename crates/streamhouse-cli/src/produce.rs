//! `streamhouse produce`: sends records and awaits every acknowledgement.

use crate::generator::Generator;
#[cfg(feature = "metrics")]
use crate::metrics;
use crate::output::{Output, human_bytes, human_duration, kind_name};
use crate::pace::Pacer;
use crate::parse;
use crate::pending::Pending;
use crate::places::Places;
use crate::progress::Progress;
use crate::report::{ProduceReport, ProduceTally, ReportFile};
use crate::run::{RunArgs, stop_on_signals};
use crate::source::Source;
use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;
use streamhouse_client::{Admin, ClientError, Compression, Producer};
use streamhouse_core::limits::RECORD_BYTES_MAX;
use streamhouse_core::{Counted, ErrorKind, Partition};
use streamhouse_metadata::MetadataError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Every so many records the run looks at what was acknowledged and whether it should stop: often enough to be prompt
/// at any rate, seldom enough to cost nothing.
const CHECK_EVERY: u64 = 256;
/// Bytes of a made-up value when not told: what small events measure.
const SIZE: usize = 100;
/// How long a record waits for room in the producer's memory before it fails: the client library's default.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What to send.
#[derive(Debug, Args)]
pub(crate) struct Produce {
    /// The topic.
    topic: String,
    /// Only to this partition; else keys decide, and records without a key are spread.
    #[arg(long, value_name = "N")]
    partition: Option<Partition>,
    #[command(flatten)]
    from: From,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Records per second, evenly spaced; else as many as the log takes.
    #[arg(long, value_name = "R", value_parser = parse::rate)]
    rate: Option<f64>,
    #[command(flatten)]
    batching: Batching,
    #[command(flatten)]
    run: RunArgs,
}

/// Where the records come from: standard input, unless told otherwise.
#[derive(Debug, Args)]
struct From {
    /// Send the lines of this file.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    file: Option<PathBuf>,
    /// With --file: begin again at its end.
    #[arg(long, requires = "file")]
    repeat: bool,
    /// What stands between a line's key and its value; lines without it have no key.
    #[arg(long, value_name = "TEXT", conflicts_with = "generate", value_parser = separator)]
    key_separator: Option<String>,
    /// Send this many made-up records; without a number, until something else ends the run.
    #[arg(long, value_name = "N", num_args = 0..=1)]
    generate: Option<Option<u64>>,
    /// With --generate: bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = SIZE, value_parser = parse::bytes, requires = "generate")]
    size: usize,
    /// With --generate: draw each key from this many; else records have none.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..), requires = "generate")]
    keys: Option<u32>,
    /// With --generate: the same seed makes the same records.
    #[arg(long, value_name = "S", default_value_t = 0, requires = "generate")]
    seed: u64,
}

/// How the producer batches. What is not given is the client library's default.
#[derive(Debug, Args)]
struct Batching {
    /// none, lz4 or zstd.
    #[arg(long, value_name = "CODEC")]
    compression: Option<Compression>,
    /// Seal a batch before it exceeds this many bytes.
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    batch_bytes: Option<usize>,
    /// Seal a batch at this many records.
    #[arg(long, value_name = "N")]
    batch_records: Option<usize>,
    /// How long a batch's first record waits for others, such as 1ms.
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    linger: Option<Duration>,
    /// Memory for records that are not acknowledged yet.
    #[arg(long, value_name = "BYTES", value_parser = parse::bytes)]
    buffer_bytes: Option<usize>,
    /// How long a record may take to be acknowledged before it fails, such as 30s.
    #[arg(long, value_name = "TIME", env = "STREAMHOUSE_DELIVERY_TIMEOUT", value_parser = parse::duration)]
    delivery_timeout: Option<Duration>,
}

/// Does it.
pub(crate) async fn execute(command: Produce, places: &Places, output: Output) -> Result<()> {
    let stop = stop_on_signals()?;
    let store = places.metadata().await?;
    command.check_topic(&Admin::new(store.clone())).await?;
    let mut source = command.from.open().await?;
    let report_file = ReportFile::create(command.run.report.as_deref())?;
    let mut builder = Producer::builder().metadata_store(store).security(places.security());
    if let Some(id) = &command.run.client_id {
        builder = builder.client_id(id);
    }
    #[cfg(feature = "metrics")]
    {
        let address = command.run.metrics_listen_address;
        builder = builder.metrics(metrics::serve(address, streamhouse_client::ProducerMetrics::new).await?);
    }
    let producer = command.batching.apply(builder).build().await?;

    command.run.begin(&stop).await?;
    let mut pending = Pending::default();
    let sent = command.send_all(&producer, &mut source, &mut pending, &stop).await;
    let flushed = producer.flush().await;
    pending.settle_all().await;
    let closed = producer.close().await;

    let tally = pending.tally;
    let report = tally.report(&command.topic);
    report_file.write(&report)?;
    output.show(&report, |report| summary(report, &tally))?;
    sent?;
    if tally.failures() > 0 {
        bail!(failures(&tally));
    }
    // Each record's failure was counted above; what is left is a failure of the producer itself.
    flushed.and(closed).map_err(|error| anyhow!("the producer did not end in order: {error}"))
}

impl Produce {
    /// A wrong topic or partition is said before the first record, not by each.
    async fn check_topic(&self, admin: &Admin) -> Result<()> {
        let partitions = admin.describe_topic(&self.topic).await?.topic.partitions;
        if let Some(partition) = self.partition.filter(|partition| *partition >= partitions) {
            let topic = self.topic.clone();
            return Err(MetadataError::PartitionNotFound { topic, partition, partitions }.into());
        }
        Ok(())
    }

    fn limit(&self) -> Option<u64> {
        let generate = self.from.generate.flatten();
        generate.into_iter().chain(self.records).min()
    }

    /// Sends until the source ends, the limit is reached, `stop` is cancelled, or a failure that every further record
    /// would meet too.
    async fn send_all(
        &self,
        producer: &Producer,
        source: &mut Source,
        pending: &mut Pending,
        stop: &CancellationToken,
    ) -> Result<()> {
        let limit = self.limit().unwrap_or(u64::MAX);
        let mut pacer = self.rate.map(|rate| Pacer::new(rate, Instant::now()));
        let typed = matches!(source, Source::Stdin(_)) && std::io::stdin().is_terminal();
        let mut progress = Progress::new(self.limit(), !typed);
        pending.tally.started();
        for number in 0..limit {
            if number % CHECK_EVERY == 0 {
                if stop.is_cancelled() {
                    break;
                }
                pending.settle_ended();
                progress.update(pending.tally.total);
            }
            if let Some(pacer) = &mut pacer
                && !wait_turn(pacer, pending, stop, &mut progress).await
            {
                break;
            }
            let Some(next) = pending.during(stop, source.next()).await else { break };
            let Some((key, value)) = next? else { break };
            let bytes = (key.map_or(0, <[u8]>::len) + value.len()) as u64;
            let send = producer.send(&self.topic, key, value, self.partition);
            match pending.during(stop, send).await {
                Some(Ok(delivery)) => pending.push(delivery, bytes).await,
                Some(Err(error)) if is_final(&error) => return Err(error.into()),
                Some(Err(error)) => pending.refused(&error),
                None => break,
            }
        }
        progress.finish();
        Ok(())
    }
}

/// Waits until the next record is due; false when the run should stop.
async fn wait_turn(
    pacer: &mut Pacer,
    pending: &mut Pending,
    stop: &CancellationToken,
    progress: &mut Progress,
) -> bool {
    while let Err(due) = pacer.take(Instant::now) {
        progress.update(pending.tally.total);
        if pending.during(stop, tokio::time::sleep_until(due)).await.is_none() {
            return false;
        }
    }
    true
}

/// Whether every further record would fail the same way.
fn is_final(error: &ClientError) -> bool {
    error.kind() == ErrorKind::NotFound || matches!(error, ClientError::Closed)
}

fn separator(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a separator has at least one character".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

impl From {
    async fn open(&self) -> Result<Source> {
        if self.generate.is_some() {
            ensure!(
                self.size <= RECORD_BYTES_MAX,
                "a value of {} bytes is over the limit of {RECORD_BYTES_MAX} bytes a record; choose a smaller --size",
                self.size
            );
            let generator = Generator::new(self.seed, self.size, self.keys);
            return Ok(Source::Generator(Box::new(generator)));
        }
        match &self.file {
            Some(path) => Source::file(path, self.key_separator.as_deref(), self.repeat).await,
            None => Ok(Source::stdin(self.key_separator.as_deref())),
        }
    }
}

impl Batching {
    fn apply(&self, mut builder: streamhouse_client::ProducerBuilder) -> streamhouse_client::ProducerBuilder {
        if let Some(compression) = self.compression {
            builder = builder.compression(compression);
        }
        if let Some(bytes) = self.batch_bytes {
            builder = builder.batch_bytes(bytes);
        }
        if let Some(records) = self.batch_records {
            builder = builder.batch_records(records);
        }
        if let Some(linger) = self.linger {
            builder = builder.linger(linger);
        }
        if let Some(bytes) = self.buffer_bytes {
            builder = builder.buffer_bytes(bytes);
        }
        if let Some(timeout) = self.delivery_timeout {
            // A shorter one alone is no contradiction: waiting for room then ends with it.
            builder = builder.delivery_timeout(timeout).send_timeout(SEND_TIMEOUT.min(timeout));
        }
        builder
    }
}

fn summary(report: &ProduceReport, tally: &ProduceTally) -> String {
    if report.records == 0 {
        return format!("0 records acknowledged; {} failed", report.errors);
    }
    let seconds = report.seconds.max(f64::MIN_POSITIVE);
    let latencies = &tally.latencies;
    format!(
        "{} ({}) acknowledged in {:.3} s: {:.0} records/s, {}/s; {} failed\n\
         latency p50 {}, p99 {}, max {}",
        Counted(report.records, "record"),
        human_bytes(report.bytes as f64),
        report.seconds,
        report.records as f64 / seconds,
        human_bytes(report.bytes as f64 / seconds),
        report.errors,
        human_duration(latencies.quantile(0.5)),
        human_duration(latencies.quantile(0.99)),
        human_duration(latencies.max()),
    )
}

fn failures(tally: &ProduceTally) -> String {
    let kinds = tally
        .errors
        .iter()
        .map(|(kind, (count, message))| format!("{count} {} (the first: {message})", kind_name(*kind)));
    format!("{} failed: {}", Counted(tally.failures(), "record"), kinds.collect::<Vec<_>>().join("; "))
}
