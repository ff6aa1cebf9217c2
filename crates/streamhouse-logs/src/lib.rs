//! How every program of StreamHouse writes its log: to standard error, filtered as `RUST_LOG` says, as text or JSON.
//!
//! A line that is written while a trace is current shows its id: the hooks have it in a span `trace{trace_id=...}`.

use clap::{Args, ValueEnum};
use std::env;
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Where a filter is looked for when no flag has one: the first that is set.
const FILTER_VARIABLES: [&str; 2] = ["STREAMHOUSE_LOG", "RUST_LOG"];
/// Lets the span of a trace through whatever the filter says, so that each line that is shown shows its trace. Nothing else
/// has this target.
const TRACE_SPAN: &str = "streamhouse::trace=error";

/// What the log shows, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// What is logged, as RUST_LOG says it: warn, or streamhouse_client=debug,info [env: STREAMHOUSE_LOG, then RUST_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "STREAMHOUSE_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line, with timestamp, level, target, message, fields and span.
    Json,
}

impl LogArgs {
    /// Has this process log to standard error. `default` is what is logged unless the flag or a variable says otherwise.
    ///
    /// # Errors
    ///
    /// A sentence, when the filter is not one.
    pub fn init(&self, default: &str) -> Result<(), String> {
        let filter = self.filter(default, |name| env::var(name).ok())?;
        let subscriber = self.subscriber(filter, io::stderr, io::stderr().is_terminal());
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| "the log is set up already".to_owned())
    }

    fn filter(&self, default: &str, variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, String> {
        let named = |name: &&'static str| Some((*name, variable(name).filter(|text| !text.is_empty())?));
        let (from, text) = match &self.log {
            Some(text) => ("--log", text.clone()),
            None => {
                FILTER_VARIABLES.iter().find_map(named).unwrap_or_else(|| ("the default", default.to_owned()))
            }
        };
        EnvFilter::try_new(&text).map_err(|error| {
            format!("{from} is {text:?}, which is no filter: {error}; write a level, such as info, or TARGET=LEVEL with commas between")
        })
    }

    fn subscriber<W>(&self, filter: EnvFilter, writer: W, colours: bool) -> Box<dyn Subscriber + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let filter = filter.add_directive(TRACE_SPAN.parse().expect("it is a directive"));
        // A line that cannot be written is lost. By default that is told on standard error, where `eprintln` panics.
        let lines =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => Box::new(lines.with_ansi(colours).finish()),
            LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false).finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log_format: LogFormat, filter: &str) -> String {
        let lines = Lines::default();
        let arguments = LogArgs { log: None, log_format };
        let filter = arguments.filter(filter, |_| None).expect("a filter");
        let kept = lines.clone();
        let subscriber = arguments.subscriber(filter, move || kept.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            let _span =
                tracing::error_span!(target: "streamhouse::trace", "trace", trace_id = "0af7").entered();
            tracing::warn!(records = 7, "a batch failed");
            tracing::debug!("not shown");
        });
        let bytes = lines.0.lock().expect("no panic holds it").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn lines_show_their_trace_in_either_format() {
        for filter in ["info", "warn", "off,streamhouse_logs=warn", "streamhouse=off,streamhouse_logs=debug"]
        {
            let text = logged(LogFormat::Text, filter);
            assert!(
                text.contains("WARN trace{trace_id=\"0af7\"}") && text.contains("a batch failed records=7"),
                "{filter}: {text}"
            );
        }
        assert_eq!(logged(LogFormat::Text, "error"), "", "the span alone is no line");
        let json = logged(LogFormat::Json, "info");
        assert_eq!(json.lines().count(), 1, "{json}");
        let line: serde_json::Value = serde_json::from_str(&json).expect("an object");
        assert_eq!(line["message"], "a batch failed");
        assert_eq!(line["records"], 7);
        assert_eq!(line["span"]["trace_id"], "0af7");
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn the_flag_wins_over_variables_and_nonsense_is_told() {
        let shown = |log: Option<&str>, variables: &[(&str, &str)]| {
            let arguments = LogArgs { log: log.map(str::to_owned), ..LogArgs::default() };
            let get =
                |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, text)| (*text).to_owned());
            arguments.filter("info", get).map(|filter| filter.to_string())
        };
        assert_eq!(shown(None, &[]), Ok("info".to_owned()));
        assert_eq!(shown(None, &[("RUST_LOG", "debug")]), Ok("debug".to_owned()));
        assert_eq!(shown(None, &[("RUST_LOG", "debug"), ("STREAMHOUSE_LOG", "warn")]), Ok("warn".to_owned()));
        assert_eq!(shown(None, &[("STREAMHOUSE_LOG", "")]), Ok("info".to_owned()));
        assert_eq!(shown(Some("a=trace"), &[("RUST_LOG", "debug")]), Ok("a=trace".to_owned()));
        let error = shown(None, &[("RUST_LOG", "a=loud")]).expect_err("no level");
        assert!(error.starts_with("RUST_LOG is \"a=loud\", which is no filter"), "{error}");
    }
}
