//! The proof, and the same tools for the jobs and connectors of others.
//!
//! For a job of one's own, with the feature `crash-points` (never in production builds):
//!
//! - [`JobTest`] runs a job with scripted input and crashes at named points, in milliseconds;
//! - [`OperatorTest`] hands an operator its input in every way that an engine may;
//! - [`simulation`] runs the real runtime from a seed, with everything around it simulated.
//!
//! For a connector of one's own:
//!
//! - [`conformance`] holds the rules that every source and every exactly-once sink must keep, and
//!   [`storage`] a checkpoint storage in memory that fails when it is told to.
//!
//! What breaks real processes on purpose, and checks what came out:
//!
//! - the binary `victim` is a job whose every output names its input, into files and into SQLite;
//! - [`audit`] checks its output. It shares no code with the engine: it reads files and tables, and
//!   knows by arithmetic what must be in them;
//! - [`victim`] starts the victim, kills it, stops it, and starts it again;
//! - [`matrix`] does so at every crash point.

pub mod audit;
pub mod conformance;
#[cfg(feature = "crash-points")]
pub mod job_test;
pub mod matrix;
#[cfg(feature = "crash-points")]
pub mod operator_test;
#[cfg(feature = "crash-points")]
pub mod simulation;
pub mod storage;
pub mod victim;

#[cfg(feature = "crash-points")]
pub use job_test::{Crash, JobTest, Script, script};
#[cfg(feature = "crash-points")]
pub use operator_test::OperatorTest;
