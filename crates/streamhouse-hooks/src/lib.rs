//! What a StreamHouse process shows to an observer outside of it: events through USDT sites, state through a page of
//! shared memory.
//!
//! Code that does something calls one function per noun, and that one call feeds the noun's site, its `tracing` event and,
//! where the process serves its metrics itself, its recorder:
//!
//! ```
//! use streamhouse_hooks::{GaugeId, Instance, Role, Write, write};
//!
//! // Once for each agent, producer or consumer, and once for each partition that it works on.
//! let agent = Instance::new(Role::Agent, "agent-1", "");
//! let scope = agent.scope("orders", Some(0));
//! let partitions = agent.gauge(GaugeId::AgentActivePartitions, "", None);
//!
//! // For each batch.
//! let started = write::start();
//! // ... the batch is written and committed ...
//! write(&scope, Write { records: 1_000, bytes: 100_000, started, status: 0 });
//!
//! // Whenever the value changes, and now and then when it does not.
//! partitions.set_now(1);
//! ```
//!
//! # What a hook costs
//!
//! | who looks | cost of a call |
//! | --- | --- |
//! | nobody | two comparisons with memory and two jumps not taken, one pair for the site and one for `tracing`; no clock |
//! | the probe | half a microsecond for the kernel's program, two clock readings (25 ns each), for [`send`](fn@send) 2 ns a record |
//! | a `tracing` subscriber | what the subscriber costs |
//! | the process itself (feature `metrics`) | a few atomic adds, for [`send`](fn@send) 2 ns a record; two clock readings |
//! | feature `disabled` | nothing: there is no site, no event and no page |
//!
//! So a hook may be called once for a batch or a call, never once for a record. Setting a [`Gauge`] is two relaxed
//! stores, whoever looks. Making an [`Instance`], a [`Scope`] or a [`Gauge`] allocates and may lock: make them with
//! what they describe and keep them as long.
//!
//! **Invariant 7**: observation never changes behaviour. No hook blocks, allocates, fails or panics, whatever an
//! observer does; where there is no page, no room on it, no site for the processor, less is seen and nothing else
//! happens.
//!
//! # To add a site
//!
//! 1. Give it a name and a number in [`Site`], and a row in the table there; an incompatible change of a site's
//!    arguments is a new site.
//! 2. Give it a file of its name. An operation with one duration is an `operation! { ... }`; what is more, as
//!    [`send`](mod@send), [`object`](mod@object) and [`request`](mod@request) are, is written out: `site!(Site, "name", Event)` declares the one
//!    function that holds the site, the public function looks whether anyone looks, and `observe`, cold and out of
//!    line, does the rest: the duration, `scope.touched()`, `fire(...)`, the `tracing` event.
//! 3. Add it to [`Started::now_if`] and to `fork`; the tests here then find its note.
//! 4. Give the kernel program and the catalog what they do with it.
//!
//! What depends on the processor is in `arch`, one file each; other processors and systems have no sites.

#[macro_use]
mod arch;
#[macro_use]
mod operation;

pub mod commit;
pub mod flush;
#[cfg(all(target_os = "linux", not(feature = "disabled")))]
mod fork;
mod look;
pub mod object;
mod page;
pub mod poll;
mod process;
mod record;
pub mod request;
mod scope;
pub mod send;
mod started;
mod text;
pub mod trace;
pub mod write;

pub use commit::{Commit, commit};
pub use flush::{Flush, flush};
pub use object::{Object, object};
pub use page::Gauge;
pub use poll::{Poll, poll};
pub use request::{Request, request};
pub use scope::{Instance, Scope};
pub use send::{Send, send};
pub use started::Started;
pub use streamhouse_abi::limits::AGENT_SILENCE_MAX;
pub use streamhouse_abi::page::Gauge as GaugeId;
pub use streamhouse_abi::{Method, Operation, Role, Site};
pub use trace::TraceContext;
pub use write::{Write, write};
