//! Which trace an operation belongs to: the W3C trace context (<https://www.w3.org/TR/trace-context/>), version 00.
//!
//! The context that is current on a thread reaches the sites (argument 5), the `tracing` events of the hooks as
//! `trace_id`, and, through the span that [`TraceContext::of`] opens, every log line that is written meanwhile.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::pin;
use tracing::{Instrument, Span};

/// The header, in HTTP and gRPC, that carries a context.
pub const TRACEPARENT: &str = "traceparent";
/// Length of a context of version 00 as text.
const TEXT_BYTES: usize = 55;
/// The flag that says that the caller may have recorded the trace.
const SAMPLED: u8 = 1;

/// Sixteen bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a trace.
///
/// ```
/// use streamhouse_hooks::TraceContext;
///
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let context = TraceContext::parse(header).unwrap();
/// assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
/// assert_eq!(context.to_string(), header);
///
/// let child = context.child();
/// assert_eq!(child.trace_id(), context.trace_id());
/// assert_ne!(child, context);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    /// Of the operation that asks.
    parent_id: u64,
    flags: u8,
}

thread_local! {
    static CURRENT: Cell<Option<TraceContext>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

impl TraceContext {
    /// Begins a trace.
    #[allow(clippy::new_without_default, reason = "no two are equal")]
    pub fn new() -> TraceContext {
        let id = u128::from(random()) << 64 | u128::from(random());
        TraceContext { trace_id: TraceId(id.to_be_bytes()), parent_id: random(), flags: SAMPLED }
    }

    /// From a `traceparent` header; `None` for one that the specification says to ignore. Of a later version what is known
    /// of it is taken.
    pub fn parse(header: &str) -> Option<TraceContext> {
        let bytes = header.as_bytes();
        let text = bytes.get(..TEXT_BYTES)?;
        let [version] = hex(&text[..2])?;
        let dashes = [2, 35, 52].into_iter().all(|at| text[at] == b'-');
        let ends = match version {
            0 => bytes.len() == TEXT_BYTES,
            0xff => false,
            _ => bytes.get(TEXT_BYTES).is_none_or(|byte| *byte == b'-'),
        };
        let (trace_id, parent_id, [flags]) = (hex(&text[3..35])?, hex(&text[36..52])?, hex(&text[53..])?);
        let parent_id = u64::from_be_bytes(parent_id);
        let valid = dashes && ends && trace_id != [0; 16] && parent_id != 0;
        valid.then_some(TraceContext { trace_id: TraceId(trace_id), parent_id, flags: flags & SAMPLED })
    }

    /// That of an operation which this one causes.
    pub fn child(&self) -> TraceContext {
        TraceContext { parent_id: random(), ..*self }
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// What is current on this thread.
    pub fn current() -> Option<TraceContext> {
        CURRENT.get()
    }

    /// Makes it current on this thread until what is returned is dropped.
    pub fn enter(self) -> Entered {
        Entered { before: CURRENT.replace(Some(self)), _on_its_thread: PhantomData }
    }

    /// Has `work` done with it current, in a span that log lines show.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        self.span().in_scope(work)
    }

    /// Makes it current whenever the future works, and has it work in a span that log lines show: `trace{trace_id=...}`.
    pub async fn of<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future.instrument(self.span()));
        poll_fn(|context| {
            let _entered = self.enter();
            future.as_mut().poll(context)
        })
        .await
    }

    /// The span that log lines show, of the target `streamhouse::trace`.
    pub fn span(self) -> Span {
        // At the highest level: who hides it would hide which trace the lines are of that are shown.
        tracing::error_span!(target: "streamhouse::trace", "trace", trace_id = %self.trace_id)
    }
}

/// As a header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// A context is current on this thread as long as this lives.
#[derive(Debug)]
pub struct Entered {
    before: Option<TraceContext>,
    /// Not to be sent: it would leave the context current where it began, and end another's.
    _on_its_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The current trace's id.
pub(crate) fn current_id() -> Option<TraceId> {
    TraceContext::current().map(|context| context.trace_id)
}

/// The address of a trace id, for a site; 0 without one.
pub(crate) fn address(id: &Option<TraceId>) -> u64 {
    id.as_ref().map_or(0, |id| crate::look::touched(&id.0) as u64)
}

/// Lower-case hexadecimal digits, two a byte.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// Has this thread draw ids anew, other than those of the process it was forked from.
#[cfg(all(target_os = "linux", not(feature = "disabled")))]
pub(crate) fn forget_random() {
    RANDOM.set(0);
}

/// Sixty-four random bits, not all zero: a generator for each thread, for ids are no secrets.
fn random() -> u64 {
    let mut state = RANDOM.get();
    if state == 0 {
        state = crate::process::seed();
    }
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    crate::process::mixed(state).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn what_the_specification_ignores_is_no_context() {
        assert!(TraceContext::parse(HEADER).is_some());
        let later = format!("cc{}-what-comes-later", &HEADER[2..]);
        assert_eq!(TraceContext::parse(&later), TraceContext::parse(HEADER));
        for bad in [
            "",
            "00",
            &HEADER[..54],
            &format!("{HEADER}-more"),
            &format!("{HEADER}0"),
            &format!("ff{}", &HEADER[2..]),
            &later.replacen("-what", "what", 1),
            &HEADER.replace("0af7", "0AF7"),
            &HEADER.replace("-b7", "_b7"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333\u{e9}-0",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_differ_between_calls_and_threads() {
        let mut ids: Vec<_> = (0..1000).map(|_| TraceContext::new().trace_id().0).collect();
        ids.extend(std::thread::spawn(|| TraceContext::new().trace_id().0).join());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1001);
    }

    #[test]
    fn contexts_nest_and_follow_a_future() {
        let (outer, inner) = (TraceContext::new(), TraceContext::new());
        assert_eq!(TraceContext::current(), None);
        let entered = outer.enter();
        let mut seen = pin!(inner.of(async { TraceContext::current() }));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(seen.as_mut().poll(&mut context), Poll::Ready(Some(inner)));
        assert_eq!(TraceContext::current(), Some(outer));
        drop(entered);
        assert_eq!(TraceContext::current(), None);
    }
}
