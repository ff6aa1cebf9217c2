//! A member of the group that writes down what it got before it commits.

use crate::lines::{Got, Identity};
use crate::{Log, PAUSE, terminated};
use anyhow::Result;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;
use streamhouse_client::{ConsumedRecord, Consumer};

/// How soon another member takes over from one that was killed.
const SESSION: Duration = Duration::from_secs(4);
/// Longest wait of a poll.
const POLL: Duration = Duration::from_millis(200);

/// Reads until SIGTERM, then leaves the group.
pub(crate) async fn run(log: &Log, group: &str, name: &str) -> Result<()> {
    let mut terminated = terminated()?;
    let mut file = BufWriter::new(File::create(log.dir().join(format!("consumer-{name}")))?);
    let mut consumer = loop {
        match join(log, group, name).await {
            Ok(consumer) => break consumer,
            Err(error) => eprintln!("not started yet: {error:#}"),
        }
        tokio::time::sleep(PAUSE).await;
    };
    loop {
        let polled = tokio::select! {
            polled = consumer.poll(POLL) => polled,
            _ = terminated.recv() => break,
        };
        match polled {
            Ok(records) => write(&mut file, &records)?,
            Err(error) => {
                eprintln!("poll: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // What a commit fails for comes again, here or with another member.
        if let Err(error) = consumer.commit().await {
            eprintln!("commit ({:?}): {error}", error.kind());
        }
    }
    consumer.close().await?;
    Ok(())
}

async fn join(log: &Log, group: &str, name: &str) -> Result<Consumer> {
    let consumer = Consumer::builder()
        .metadata_store(log.store().await?)
        .object_store(log.objects()?.open()?)
        .group_id(group)
        .client_id(format!("torture-consumer-{name}"))
        .topics([log.topic.as_str()])
        .session_timeout(SESSION);
    Ok(consumer.build().await?)
}

/// Leaves nothing in our buffer: the next commit says that it was got, and we may be killed after it.
fn write(file: &mut BufWriter<File>, records: &[ConsumedRecord]) -> Result<()> {
    for record in records {
        let identity = Identity::of(&record.value)?;
        writeln!(file, "{}", Got { partition: record.partition, offset: record.offset, identity })?;
    }
    Ok(file.flush()?)
}
