//! The jobs as their users run them: real processes, real signals, real files.
//!
//! One program, so that tests run side by side: most of their time is waiting.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

#[path = "../support/mod.rs"]
mod support;

mod disk_full;
mod exits;
mod follow;
mod inputs;
mod kills;
mod last_words;
mod metrics;
mod options;
mod plan;
mod printing;
mod refusals;
mod restarts;
mod signals;
mod words;
