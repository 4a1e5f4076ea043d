//! The engine, from outside: whole jobs in this process, through the facade, with everything that can
//! go wrong.
//!
//! Reading order: [`harness`] (running a job with a time limit, looking into its checkpoints),
//! [`topic`] (a source that the test feeds by hand), [`faulty`] (sinks that misbehave on demand),
//! [`oracle`] (what the output must be). Then the tests, simplest first.

// All of this is test code, helpers included.
#![allow(clippy::unwrap_used)]

mod faulty;
mod harness;
mod oracle;
mod topic;

mod bad_input;
mod coming_and_going;
mod commits;
mod controls;
mod crashes;
mod event_time;
mod failures;
mod files;
mod flow_control;
mod lifecycle;
mod metrics;
mod parameters;
mod plans;
mod recovery_log;
mod refusals;
mod rescale;
mod sinks;
mod splits;
mod steps;
mod verbs;
mod waits;
mod windows;
