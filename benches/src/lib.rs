//! What benchmarks share. Each benchmark is a program in `src/bin`.
//!
//! A benchmark runs every variant in a child process of its own, so that memory is measured for each
//! and none inherits another's heap, and in interleaved rounds, so that a noisy machine is noisy for
//! all: claims are ratios within one run.
//!
//! Where a result comes from (machine, commit, command) is told by `staunch_testing::figures`.
//! [`keys`] (the input), [`process`] (memory of this process, children that
//! answer in JSON), [`scrape`] (reading a job's metrics), [`statistics`].

pub mod keys;
pub mod process;
pub mod scrape;
pub mod statistics;
