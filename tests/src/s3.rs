//! The S3 server of tests, as a process.

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// Its only bucket.
pub const BUCKET: &str = "streamhouse";
/// Who may use it.
pub const ACCESS_KEY: &str = "streamhouse-test";
/// The secret of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "only for servers on loopback";

/// What the server does to requests; of 100 each, decided one after the other in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answers 503 SlowDown and does nothing.
    pub slow_down_percent: u8,
    /// Answers 500 InternalError and does nothing.
    pub error_percent: u8,
    /// Waits for `stall` before it does anything.
    pub stall_percent: u8,
    /// How long.
    pub stall: Duration,
    /// Of GETs: answers half of the body and closes.
    pub truncate_percent: u8,
    /// Does what is asked and closes without an answer.
    pub unanswered_percent: u8,
}

/// How many requests met what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// All requests.
    pub requests: u64,
    /// Answered 503.
    pub slowed_down: u64,
    /// Answered 500.
    pub errors: u64,
    /// Answered late.
    pub stalled: u64,
    /// Answered in part.
    pub truncated: u64,
    /// Done and not answered.
    pub unanswered: u64,
}

/// A line of the protocol: numbers, divided by spaces.
fn numbers<const N: usize>(line: &str) -> Result<[u64; N]> {
    let numbers: Vec<u64> = line
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("not numbers: {line:?}"))?;
    numbers.try_into().map_err(|_| anyhow::anyhow!("not {N} numbers: {line:?}"))
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            slow_down_percent,
            error_percent,
            stall_percent,
            stall,
            truncate_percent,
            unanswered_percent,
        } = self;
        let stall_ms = stall.as_millis();
        write!(
            f,
            "{slow_down_percent} {error_percent} {stall_percent} {stall_ms} {truncate_percent} {unanswered_percent}"
        )
    }
}

impl FromStr for Faults {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Faults> {
        let [slow_down, error, stall, stall_ms, truncate, unanswered] = numbers(line)?;
        let percent = |number: u64| u8::try_from(number).context("a percentage over 255");
        Ok(Faults {
            slow_down_percent: percent(slow_down)?,
            error_percent: percent(error)?,
            stall_percent: percent(stall)?,
            stall: Duration::from_millis(stall_ms),
            truncate_percent: percent(truncate)?,
            unanswered_percent: percent(unanswered)?,
        })
    }
}

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultCounts { requests, slowed_down, errors, stalled, truncated, unanswered } = self;
        write!(f, "{requests} {slowed_down} {errors} {stalled} {truncated} {unanswered}")
    }
}

impl FromStr for FaultCounts {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<FaultCounts> {
        let [requests, slowed_down, errors, stalled, truncated, unanswered] = numbers(line)?;
        Ok(FaultCounts { requests, slowed_down, errors, stalled, truncated, unanswered })
    }
}

/// A running server. Dropped, it ends; it also ends with this process.
pub struct S3Server {
    address: SocketAddr,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Process,
}

impl S3Server {
    /// Starts `binary` with its objects in `dir`; `seed` decides which requests faults meet. Its log goes to `log`.
    ///
    /// # Errors
    ///
    /// When it does not come up; its log says why.
    pub fn start(binary: &Path, dir: &Path, seed: u64, log: &Path) -> Result<S3Server> {
        let mut command = Command::new(binary);
        command.arg(dir).arg(seed.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(log)?);
        let mut process = Process::start("s3-server", &mut command)?;
        let (commands, answers) = process.pipes().context("the S3 server has no pipes")?;
        let mut answers = BufReader::new(answers);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("the S3 server did not start; see {}", log.display()))?;
        Ok(S3Server { address, commands, answers, _process: process })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what it does to requests from now on.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn set(&mut self, faults: &Faults) -> Result<()> {
        self.ask(&format!("faults {faults}")).map(drop)
    }

    /// How many requests met what.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn counts(&mut self) -> Result<FaultCounts> {
        self.ask("counts")
    }

    fn ask(&mut self, command: &str) -> Result<FaultCounts> {
        writeln!(self.commands, "{command}").context("the S3 server has ended")?;
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the S3 server has ended");
        line.trim().parse()
    }
}

/// The variables that let an S3 client find and use the server at `address` (the server's, or a proxy's before it).
pub fn environment(address: SocketAddr) -> [(&'static str, String); 5] {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_says_what_was_meant() {
        let faults = Faults {
            slow_down_percent: 1,
            error_percent: 2,
            stall_percent: 3,
            stall: Duration::from_millis(4),
            truncate_percent: 5,
            unanswered_percent: 6,
        };
        assert_eq!(faults.to_string().parse::<Faults>().unwrap(), faults);
        let counts =
            FaultCounts { requests: 1, slowed_down: 2, errors: 3, stalled: 4, truncated: 5, unanswered: 6 };
        assert_eq!(counts.to_string().parse::<FaultCounts>().unwrap(), counts);
        assert!("1 2 3".parse::<Faults>().is_err());
        assert!("1 2 3 4 5 x".parse::<Faults>().is_err());
    }
}
