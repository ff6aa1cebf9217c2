//! Hooks.

#[macro_use]
mod arch;

pub mod commit;
pub mod flush;
mod look;
pub mod object;
mod page;
pub mod poll;
mod process;
mod scope;
pub mod send;
mod started;
mod text;
pub mod write;

pub use commit::{Commit, commit};
pub use flush::{Flush, flush};
pub use object::{Object, object};
pub use page::Gauge;
pub use poll::{Poll, poll};
pub use scope::{Instance, Scope};
pub use send::{Send, send};
pub use started::Started;
pub use streamhouse_abi::page::Gauge as GaugeId;
pub use streamhouse_abi::{Operation, Role, Site};
pub use write::{Write, write};
