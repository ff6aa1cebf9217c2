//! `streamhouse-probe top`: what a running probe sees, again and again.
//!
//! A live view on a terminal; elsewhere a table of text for each interval, or a line of JSON.

mod screen;
mod snapshot;
mod view;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::client::{Ask, Client};
use crate::encode::Format;
use screen::Screen;
use snapshot::Snapshot;
use view::View;

/// How soon a request to end is noticed.
const ATTENTION: Duration = Duration::from_millis(100);

/// What `top` takes.
#[derive(Clone, Debug, Args)]
pub struct Top {
    #[command(flatten)]
    ask: Ask,
    /// Time between two looks, such as 500ms or 2s.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = crate::interval::parse)]
    interval: Duration,
    /// End after so many intervals.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after the first interval.
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Only processes whose instance id begins with this.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    instance: String,
    /// Print a line of JSON for each interval.
    #[arg(long)]
    json: bool,
}

/// Where the views go.
enum Output {
    Screen(Box<Screen>),
    Text,
    Json,
}

impl Top {
    /// Shows views until told to end.
    ///
    /// # Errors
    ///
    /// When the probe does not answer at first, or what is printed cannot be. A probe that does not answer later is
    /// waited for.
    pub fn run(&self) -> anyhow::Result<()> {
        static STOP: AtomicBool = AtomicBool::new(false);
        ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))
            .context("cannot watch for an interrupt")?;
        let client = Client::new(&self.ask)?;
        let ask = || Snapshot::parse(&client.get("/metrics", Format::Protobuf.content_type())?);
        let (mut before, mut begin) = (ask()?, Instant::now());
        let mut output = match (self.json, std::io::stdout().is_terminal()) {
            (true, _) => Output::Json,
            (false, true) => Output::Screen(Box::new(Screen::new(client.address())?)),
            (false, false) => Output::Text,
        };
        let mut left = if self.once { 1 } else { self.count.unwrap_or(u64::MAX) };
        let mut next = begin + self.interval;
        while left > 0 && output.wait(next, &STOP)? {
            match ask() {
                Ok(now) => {
                    let seconds = begin.elapsed().as_secs_f64();
                    begin = Instant::now();
                    output.show(View::new(&now.since(&before), seconds, &self.instance))?;
                    before = now;
                    left -= 1;
                }
                // What happens until it answers again belongs to one long interval.
                Err(error) => output.complain(&format!("{error:#}"))?,
            }
            next = Instant::now() + self.interval;
        }
        Ok(())
    }
}

impl Output {
    /// Waits until `deadline`; false when it is time to end.
    fn wait(&mut self, deadline: Instant, stop: &AtomicBool) -> anyhow::Result<bool> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self {
                Output::Screen(screen) => {
                    if screen.attend(left.min(ATTENTION))?.is_end() {
                        return Ok(false);
                    }
                }
                Output::Text | Output::Json => std::thread::sleep(left.min(ATTENTION)),
            }
            if left.is_zero() {
                return Ok(true);
            }
        }
    }

    fn show(&mut self, view: View) -> anyhow::Result<()> {
        let text = match self {
            Output::Screen(screen) => return screen.show(view),
            Output::Text => format!("{view}\n"),
            Output::Json => serde_json::to_string(&view)? + "\n",
        };
        std::io::stdout().write_all(text.as_bytes()).context("cannot print")
    }

    fn complain(&mut self, error: &str) -> anyhow::Result<()> {
        match self {
            Output::Screen(screen) => screen.complain(error),
            Output::Text | Output::Json => {
                tracing::warn!("{error}");
                Ok(())
            }
        }
    }
}
