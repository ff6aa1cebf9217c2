//! The probe: collects from outside what the hooks give, serves one Prometheus endpoint.
//!
//! Modules stand in the order that data passes them: a process is discovered and its [`sites`] are found in its
//! files; they are [attached](attach) once a file; at a scrape the kernel's maps are [collected](collect) and the state
//! [pages] copied, and both are [encoded](encode).

pub mod files;
pub mod lines;

pub mod discover;
pub mod sites;

pub mod attach;
pub mod targets;

pub mod room;

pub mod collect;
pub mod pages;

pub mod encode;
pub mod own;

pub mod probe;

pub mod http;
pub mod web;

pub mod client;
pub mod interval;
pub mod list;
pub mod top;

pub mod check;
pub mod privileges;
