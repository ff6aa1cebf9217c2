//! `streamhouse consume`: reads records for a group.

#[cfg(feature = "metrics")]
use crate::metrics;
use crate::output::{Output, STDOUT_FAILED, human_bytes, note};
use crate::parse::{self, CommitEvery};
use crate::places::Places;
use crate::printer::Printer;
use crate::progress::Progress;
use crate::report::{ConsumeReport, ConsumeTally, Counts, ReportFile};
use crate::run::{RunArgs, stop_on_signals};
use crate::unreadable::Unreadable;
use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use std::io;
use std::time::{Duration, Instant};
use streamhouse_client::{ClientError, ConsumedRecord, Consumer, OffsetReset};
use streamhouse_core::{AsTyped, Counted, ErrorKind};
use tokio_util::sync::CancellationToken;

/// A poll that finds nothing ends after this time, to look whether the run should stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// Most records of one poll: large, since what a poll costs once is then spread over many.
const POLL_RECORDS: usize = 10_000;
/// What goes wrong for a while is tried again for this long before the run ends.
const RETRY_FOR: Duration = Duration::from_secs(30);
/// A rate over less time, such as that of a single poll, would say nothing.
const RATE_SECONDS_MIN: f64 = 0.01;

/// What to read.
#[derive(Debug, Args)]
pub(crate) struct Consume {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// The group: reading resumes at its committed offsets, and is shared with the group's other consumers.
    #[arg(long)]
    group: String,
    /// Where to begin when the group has committed nothing.
    #[arg(long, value_enum, default_value_t = Reset::Earliest)]
    from: Reset,
    /// Stop after this many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_records: Option<u64>,
    /// Stop when no record has come for this many seconds.
    #[arg(long, value_name = "S", value_parser = parse::seconds)]
    idle_exit: Option<Duration>,
    /// Commit after so many records, such as 10000, or so much time; also at the end.
    #[arg(long, value_name = "N|TIME", default_value = "5s", value_parser = parse::commit_every)]
    commit_every: CommitEvery,
    /// Commit nothing: the group stays where it is.
    #[arg(long, conflicts_with = "commit_every")]
    no_commit: bool,
    /// Read every partition, also those that the group's consumers read, without being one of them. Commits are refused
    /// as long as they read.
    #[arg(long)]
    standalone: bool,
    /// Let others read this consumer's partitions when it has not been heard of for so many seconds; from 1.
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse::seconds)]
    session_timeout: Duration,
    /// Most records of one poll.
    #[arg(long, value_name = "N", default_value_t = POLL_RECORDS)]
    poll_records: usize,
    /// Print each record's key and this text before its value.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// Print no records.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Where a new group begins.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reset {
    /// At the first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
}

/// Does it.
pub(crate) async fn execute(command: Consume, places: &Places, output: Output) -> Result<()> {
    let stop = stop_on_signals()?;
    let mut builder = Consumer::builder()
        .group_id(&command.group)
        .topics(command.topics.clone())
        .metadata_store(places.metadata().await?)
        .object_store(places.objects()?)
        .offset_reset(match command.from {
            Reset::Earliest => OffsetReset::Earliest,
            Reset::Latest => OffsetReset::Latest,
        })
        .max_poll_records(command.records_per_poll())
        .standalone(command.standalone)
        .session_timeout(command.session_timeout);
    if let Some(id) = &command.run.client_id {
        builder = builder.client_id(id);
    }
    #[cfg(feature = "metrics")]
    {
        let address = command.run.metrics_listen_address;
        builder = builder.metrics(metrics::serve(address, streamhouse_client::ConsumerMetrics::new).await?);
    }
    let report_file = ReportFile::create(command.run.report.as_deref())?;
    let mut run = Run {
        consumer: builder.build().await?,
        printer: Printer::new(output.json, command.quiet, command.key_separator.as_deref()),
        progress: Progress::new(command.max_records, command.quiet),
        tally: ConsumeTally::default(),
        beyond: Counts::default(),
        commits: Commits::new(&command),
        committable: true,
        failing_since: None,
        unreadable: Unreadable::default(),
    };

    command.run.begin(&stop).await?;
    let read = run.read(&command, &stop).await;
    let committed = if run.committable { run.commits.last(&mut run.consumer).await } else { Ok(()) };
    let closed = run.consumer.close().await;
    run.progress.finish();

    let report = run.tally.into_report();
    report_file.write(&report)?;
    if command.quiet && output.json {
        output.show(&report, |report| summary(report, run.beyond))?;
    } else {
        note(&summary(&report, run.beyond));
    }
    read.map_err(|error| with_place(error, places))?;
    committed?;
    Ok(closed?)
}

impl Consume {
    /// No more than are wanted at all: what a poll returns beyond that has to be given back.
    fn records_per_poll(&self) -> usize {
        let wanted = self.max_records.and_then(|records| usize::try_from(records).ok());
        wanted.map_or(self.poll_records, |wanted| wanted.min(self.poll_records))
    }
}

/// Segments that are in the metadata store and not in the object store are most often a mistyped path.
fn with_place(error: anyhow::Error, places: &Places) -> anyhow::Error {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let Ok(place) = places.object_store() else { return error };
            let flag =
                if place.as_directory().is_some() { "--object-store-path" } else { "--object-store-url" };
            anyhow!("{error}. Is {place} ({flag}) the object store of the agent that wrote it?")
        }
        _ => error,
    }
}

struct Run {
    consumer: Consumer,
    printer: Printer,
    progress: Progress,
    tally: ConsumeTally,
    /// What polls returned beyond the limit.
    beyond: Counts,
    commits: Commits,
    /// False once records were returned that nobody got to see.
    committable: bool,
    /// The first of the failed polls since the last that succeeded.
    failing_since: Option<Instant>,
    unreadable: Unreadable,
}

impl Run {
    /// Polls until the limit, idleness, `stop`, or whoever reads standard output ends it, or no partition can be read.
    ///
    /// # Errors
    ///
    /// Also when some could not be, however much came from the others.
    async fn read(&mut self, command: &Consume, stop: &CancellationToken) -> Result<()> {
        let mut left = command.max_records.unwrap_or(u64::MAX);
        let mut last_record = Instant::now();
        // A poll is never dropped half done: it is short, and its end is awaited.
        while left > 0 && !stop.is_cancelled() && self.some_can_be_read() {
            let Some(records) = self.poll().await? else { continue };
            self.unreadable.keep_among(self.consumer.partitions());
            if records.is_empty() {
                if command.idle_exit.is_some_and(|limit| last_record.elapsed() >= limit) {
                    break;
                }
            } else {
                last_record = Instant::now();
                self.unreadable.read(&records);
                self.count(&records);
                let wanted = records.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= wanted as u64;
                if !self.print(&records[..wanted])? {
                    break;
                }
                self.give_back(&records[wanted..]).await?;
            }
            self.commits.due(&mut self.consumer, records.len() as u64).await?;
            self.progress.update(self.tally.total);
        }
        self.unreadable.verdict(&command.group)
    }

    fn some_can_be_read(&self) -> bool {
        let partitions = self.consumer.partitions();
        // Who has nothing to read yet waits for others to leave it something.
        partitions.len() == 0 || self.unreadable.partitions() < partitions.len()
    }

    /// Polls once. `None` when something went wrong, after a pause if it may pass; no records when all that was met is
    /// what cannot be read.
    async fn poll(&mut self) -> Result<Option<Vec<ConsumedRecord>>> {
        match self.consumer.poll(POLL_TIMEOUT).await {
            Ok(records) => {
                self.failing_since = None;
                Ok(Some(records))
            }
            Err(error) if error.kind().is_retryable() => {
                if self.failing_since.is_none() {
                    note(&format!("polling again for {}: {error}", AsTyped(RETRY_FOR)));
                }
                if self.failing_since.get_or_insert_with(Instant::now).elapsed() > RETRY_FOR {
                    return Err(error.into());
                }
                tokio::time::sleep(POLL_TIMEOUT).await;
                Ok(None)
            }
            Err(error) => {
                self.unreadable.take(error)?;
                self.failing_since = None;
                if !self.unreadable.went_round() {
                    return Ok(None);
                }
                tokio::time::sleep(POLL_TIMEOUT).await;
                Ok(Some(Vec::new()))
            }
        }
    }

    fn count(&mut self, records: &[ConsumedRecord]) {
        self.tally.polled();
        for run in records.chunk_by(|a, b| a.partition == b.partition && a.topic == b.topic) {
            let bytes = run.iter().map(record_bytes).sum();
            self.tally.returned(run[0].topic.as_str(), run[0].partition, run.len() as u64, bytes);
        }
    }

    /// Prints; false when nobody reads any more.
    fn print(&mut self, records: &[ConsumedRecord]) -> Result<bool> {
        match self.printer.print(records) {
            Ok(()) => Ok(true),
            Err(error) => {
                self.committable = false;
                if error.kind() == io::ErrorKind::BrokenPipe {
                    Ok(false)
                } else {
                    Err(anyhow::Error::new(error).context(STDOUT_FAILED))
                }
            }
        }
    }

    /// Moves the group's position back to before records that were polled beyond the limit.
    async fn give_back(&mut self, records: &[ConsumedRecord]) -> Result<()> {
        for run in records.chunk_by(|a, b| a.partition == b.partition && a.topic == b.topic) {
            self.beyond.add(run.len() as u64, run.iter().map(record_bytes).sum());
            self.consumer.seek(run[0].topic.as_str(), run[0].partition, run[0].offset).await?;
        }
        Ok(())
    }
}

/// When to commit.
struct Commits {
    every: Option<CommitEvery>,
    records: u64,
    last: Instant,
}

impl Commits {
    fn new(command: &Consume) -> Commits {
        let every = (!command.no_commit).then_some(command.commit_every);
        Commits { every, records: 0, last: Instant::now() }
    }

    /// Commits if it is time to, after a poll that returned `records`, or if another consumer waits for it. A store that is
    /// busy is asked again later.
    async fn due(&mut self, consumer: &mut Consumer, records: u64) -> Result<()> {
        self.records += records;
        let awaited = consumer.handing_over().next().is_some();
        let due = match self.every {
            None => false,
            Some(_) if awaited => self.records > 0,
            Some(CommitEvery::Records(every)) => self.records >= every,
            Some(CommitEvery::Time(every)) => self.records > 0 && self.last.elapsed() >= every,
        };
        if !due {
            return Ok(());
        }
        match consumer.commit().await {
            Ok(()) => {
                self.records = 0;
                self.last = Instant::now();
                Ok(())
            }
            // What is lost is not committed by trying again; all else was, or will be.
            Err(error) if error.kind() == ErrorKind::Fenced => {
                note(&error.to_string());
                Ok(())
            }
            Err(error) if error.kind().is_retryable() => {
                note(&format!("committing again later: {error}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn last(&mut self, consumer: &mut Consumer) -> Result<()> {
        if self.every.is_some() && self.records > 0 {
            consumer.commit().await?;
        }
        Ok(())
    }
}

fn record_bytes(record: &ConsumedRecord) -> u64 {
    let headers: usize = record.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    (record.key.as_ref().map_or(0, |key| key.len()) + record.value.len() + headers) as u64
}

fn summary(report: &ConsumeReport, beyond: Counts) -> String {
    let bytes = human_bytes((report.bytes - beyond.bytes) as f64);
    let mut total = format!("{} ({bytes})", Counted(report.records - beyond.records, "record"));
    if beyond.records > 0 {
        total += &format!(", and {} read and given back", beyond.records);
    }
    if report.seconds < RATE_SECONDS_MIN {
        return total;
    }
    let per_second = human_bytes(report.bytes as f64 / report.seconds);
    format!(
        "{total} in {:.3} s: {:.0} records/s, {per_second}/s",
        report.seconds,
        report.records as f64 / report.seconds
    )
}
