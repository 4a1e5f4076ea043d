//! Stream processing with checkpointed exactly-once state.
//!
//! A job is an ordinary Rust program. It describes a graph of typed streams and hands it to [`main`],
//! which gives it a command line, runs it, takes checkpoints, and continues from the last one after any
//! crash, so that results are published exactly once.
//!
//! ```no_run
//! //! Counts the words of a text file.
//! use staunch::{file, prelude::*};
//!
//! #[derive(Clone, clap::Args)]
//! struct Args {
//!     /// Text file to count.
//!     #[arg(long)]
//!     input: PathBuf,
//!     /// Directory for the counts.
//!     #[arg(long)]
//!     output: PathBuf,
//! }
//!
//! fn main() -> ExitCode {
//!     staunch::main(word_count)
//! }
//!
//! fn word_count(job: &Job, args: &Args) -> Result<()> {
//!     job.source("lines", file::lines(&args.input))
//!         .flat_map(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
//!         .key_by(|word| word.clone())
//!         .count("counts")
//!         .sink("output", file::csv(&args.output));
//!     Ok(())
//! }
//! ```
//!
//! Reading order: [`prelude`] (what a job uses), [`mod@main`](main()) (the command line),
//! [`core`] (the contracts, for connectors and operators of your own).

mod cli;
mod http;
mod output;
mod progress;
mod signals;
mod threads;

pub use cli::main;
pub use staunch_connectors::*;
pub use staunch_core as core;
#[cfg(feature = "kafka")]
pub use staunch_kafka as kafka;
pub use staunch_operators as operators;
#[cfg(feature = "postgres")]
pub use staunch_postgres as postgres;

/// Parses a duration like `24h`, `100ms` or `1h 30m`, for `#[arg(value_parser = staunch::duration)]`.
///
/// # Errors
/// The text is not a duration.
pub fn duration(text: &str) -> std::result::Result<std::time::Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 100ms, 30s or 24h"))
}

/// What a job uses, in one import.
pub mod prelude {
    pub use staunch_core::source::{BadInput, DeadLetter};
    pub use staunch_core::step::{Moment, Properties};
    pub use staunch_core::{
        Controls, Error, Job, Keyed, Outcome, Result, Run, RunConfig, SourceExt, Stream, Summary, Timestamp,
    };
    pub use staunch_operators::{Aggregate, KeyedExt, Tumbling, Window, WindowExt, WindowResult};
    pub use staunch_operators::{Cx, Needs, OrderedMap, Process, ProcessExt, SideOutput, Value};
    pub use std::path::PathBuf;
    pub use std::process::ExitCode;
    pub use std::time::Duration;
}
