//! One `tracing` event a noun, with the fields that every noun has.
#![cfg(not(feature = "disabled"))]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use streamhouse_hooks::{
    Commit, Flush, Instance, Method, Object, Operation, Poll, Request, Role, Send, Started, Write, commit,
    flush, object, poll, request, send, write,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[derive(Debug, Default)]
struct Seen {
    target: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(Level, Seen)>>>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen { target: event.metadata().target().to_owned(), ..Seen::default() };
        event.record(&mut seen);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((*event.metadata().level(), seen));
    }
}

#[test]
fn every_noun_has_one_event() {
    let recorder = Recorder::default();
    let scope = Instance::new(Role::Producer, "client-1", "").scope("orders", Some(7));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(recorder.clone()), || {
        let started = Started::at_ns(1);
        let sent_ns = [100, 200, 900];
        send(&scope, Send { records: 3, bytes: 30, sent_ns: &sent_ns, ended_ns: 500, status: 0 });
        flush(&scope, Flush { records: 3, bytes: 30, started, status: 0 });
        poll(&scope, Poll { records: 3, bytes: 30, started, status: 0 });
        write(&scope, Write { records: 3, bytes: 30, started, status: 2 });
        object(&scope, Object { operation: Operation::Get, bytes: 30, started: Started::UNTIMED, status: 0 });
        commit(&scope, Commit { records: 3, bytes: 30, started: commit::start(), status: 0 });
        request(&scope, Request { method: Method::ListTopics, started, status: 0 });
    });
    let seen = recorder.0.lock().unwrap();
    let targets: Vec<_> = seen.iter().map(|(level, seen)| (*level, seen.target.as_str())).collect();
    assert_eq!(
        targets,
        [
            (Level::TRACE, "streamhouse::send"),
            (Level::DEBUG, "streamhouse::flush"),
            (Level::TRACE, "streamhouse::poll"),
            (Level::DEBUG, "streamhouse::write"),
            (Level::DEBUG, "streamhouse::object"),
            (Level::DEBUG, "streamhouse::commit"),
            (Level::DEBUG, "streamhouse::request"),
        ]
    );
    for (_, seen) in seen.iter() {
        assert_eq!(seen.fields["topic"], "\"orders\"");
        assert_eq!(seen.fields["partition"], "7");
        let request = seen.target.ends_with("request");
        assert_eq!(seen.fields["bytes"], if request { "0" } else { "30" });
        assert_eq!(seen.fields["status"], if seen.target.ends_with("write") { "2" } else { "0" });
        let untimed = seen.target.ends_with("object");
        assert_eq!(seen.fields.contains_key("duration"), !untimed, "{}", seen.target);
        assert_eq!(seen.fields["records"], if untimed || request { "0" } else { "3" });
    }
    assert_eq!(seen[0].1.fields["duration"], "700", "a record sent after the end counts as 0");
    assert_eq!(seen[4].1.fields["operation"], "\"get\"");
    assert_eq!(seen[6].1.fields["method"], "\"ListTopics\"");
}
