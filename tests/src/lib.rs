//! Drives the built binaries as an operator would: starts agents, producers, consumers and probes, reads their pages and
//! reports. Knows them only by their flags, their HTTP answers and their files; links none of their code.

mod alerting;
mod cluster;
mod exposition;
mod fleet;
mod http;
pub mod notes;
pub mod postgres;
mod process;
mod proxy;
mod random;
mod report;
pub mod s3;

pub use alerting::{Alert, Alerting};
pub use cluster::{Agent, Binaries, Cluster, Ports, Probe, Target};
pub use exposition::{Exposition, Sample};
pub use fleet::{Fleet, FleetAgent, LEASE_TERM};
pub use http::{Response, get};
pub use postgres::Postgres;
pub use process::{Process, poll_until};
pub use proxy::{Cut, Proxy};
pub use random::Random;
pub use report::{ConsumeReport, ProduceReport};
pub use s3::S3Server;
