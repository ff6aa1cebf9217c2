//! A line on standard error while a run takes long.

use crate::output::{human_bytes, progress_is_seen};
use crate::report::Counts;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Work that is over sooner shows nothing.
const SHOW_AFTER: Duration = Duration::from_millis(500);
/// How often the line is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// The line, or nothing when nobody watches.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    next_update: Instant,
    started: Instant,
}

impl Progress {
    /// Of `records`, if it is known how many there will be. `screen_is_free` when nothing else is written to the
    /// terminal meanwhile.
    pub(crate) fn new(records: Option<u64>, screen_is_free: bool) -> Progress {
        let bar = progress_is_seen(screen_is_free).then(|| {
            let bar = ProgressBar::with_draw_target(records, ProgressDrawTarget::hidden());
            let template = match records {
                // Short enough for 80 columns: a line that wraps cannot be drawn over.
                Some(_) => "{elapsed} {bar:12} {human_pos}/{human_len}, {msg}, {eta} left",
                None => "{elapsed} {human_pos}, {msg}",
            };
            let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
            bar.with_style(style)
        });
        let now = Instant::now();
        Progress { bar, next_update: now + SHOW_AFTER, started: now }
    }

    /// Says how far the run is; cheap enough to call for every batch.
    pub(crate) fn update(&mut self, counts: Counts) {
        let Some(bar) = &self.bar else { return };
        let now = Instant::now();
        if now < self.next_update {
            return;
        }
        if bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.next_update = now + REDRAW;
        let seconds = (now - self.started).as_secs_f64();
        let bytes = human_bytes(counts.bytes as f64 / seconds);
        bar.set_message(format!("{:.0} records/s, {bytes}/s", counts.records as f64 / seconds));
        bar.set_position(counts.records);
    }

    /// Takes the line away, so that the summary stands alone.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
