//! The proof, and the same tools for the jobs and connectors of others.
//!
//! For a job of one's own, with the feature `crash-points` (never in production builds):
//!
//! - `JobTest` runs a job with scripted input and crashes at named points, in milliseconds;
//! - `OperatorTest` hands an operator its input in every way that an engine may;
//! - `simulation` runs the real runtime from a seed, with everything around it simulated.
//!
//! For a connector of one's own:
//!
//! - [`conformance`] holds the rules that every source and every exactly-once sink must keep, and
//!   [`storage`] a checkpoint storage in memory that fails when it is told to.
//!
//! For both, [`small_disk`] is a file system that a test can fill, and [`servers`] are real servers, to talk to and to kill.
//!
//! What breaks real processes on purpose, and checks what came out:
//!
//! - the binary `victim` is a job whose every output names its input, into files and into SQLite;
//! - [`oracle`] says what must hold. [`audit`] (identity and prefix sums), [`observer`] and [`quiescence`]
//!   look; they share no code with the engine: they read files and tables ([`rows`]), and know by arithmetic
//!   what must be in them;
//! - [`victim`] starts the victim and judges it; [`process`] kills, stops and wakes, [`power`] takes away
//!   what was not synced;
//! - [`matrix`] breaks it at every crash point, [`attack`] at its Nth file operation, [`soak`] at random moments
//!   for as long as one likes;
//! - [`figures`] says where published figures come from.
//!
//! Commands: `crash_matrix` runs every case of the matrix, `attack` every strike, `soak` runs until it has killed enough. Results
//! that were published are in `results/`.

#[cfg(feature = "crash-points")]
pub mod attack;
pub mod audit;
pub mod conformance;
pub mod figures;
#[cfg(feature = "crash-points")]
pub mod job_test;
pub mod matrix;
pub mod observer;
#[cfg(feature = "crash-points")]
pub mod operator_test;
pub mod oracle;
pub mod power;
pub mod process;
pub mod queue;
pub mod quiescence;
pub mod rows;
pub mod servers;
#[cfg(feature = "crash-points")]
pub mod simulation;
pub mod small_disk;
pub mod soak;
pub mod storage;
pub mod victim;

#[cfg(feature = "crash-points")]
pub use job_test::{Crash, JobTest, Script, script};
#[cfg(feature = "crash-points")]
pub use operator_test::OperatorTest;
pub use queue::Queue;
