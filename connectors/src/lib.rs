//! The sources and sinks that come with Staunch. One module a system:
//!
//! | module | source | sink | promise of the sink |
//! |---|---|---|---|
//! | [`mod@file`] | lines, CSV, JSON Lines; a file or a directory; growing ones too | CSV and JSON Lines part files | exactly once |
//! | [`memory`] | a collection | [`memory::Collected`], the reference implementation | exactly once |
//! | [`generator`] | records made from their index | - | |
//! | [`stdout`] | - | lines, JSON | at least once |
//! | [`discard`] | - | nothing is kept | (nothing to show) |
//! | `sqlite` (feature, on by default) | - | a table, by insert or upsert | exactly once |
//!
//! What is in the bytes that they carry is the business of [`formats`], which files, topics and queues share.
//!
//! Reading order: [`generator`] (the smallest source), [`memory`] (the contract of a sink, without any
//! I/O), [`mod@file`], then `sqlite`, which is a target of the staged strategy in
//! [`staunch_core::staged`].
//!
//! A source or sink value is a description: it opens nothing until the job runs.

pub mod discard;
pub mod file;
pub mod formats;
pub mod generator;
pub mod memory;
mod nothing;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod stdout;
