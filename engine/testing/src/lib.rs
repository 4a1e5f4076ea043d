//! The proof: what breaks the engine on purpose, and checks what came out.
//!
//! - the binary `victim` is a job whose every output names its input, into files and into SQLite;
//! - [`audit`] checks its output. It shares no code with the engine: it reads files and tables, and
//!   knows by arithmetic what must be in them;
//! - [`victim`] starts the victim, kills it, stops it, and starts it again;
//! - [`matrix`] does so at every crash point;
//! - [`conformance`] holds the rules that every source and every exactly-once sink must keep, ours and
//!   those of others, and [`storage`] a checkpoint storage in memory that fails when it is told to.

pub mod audit;
pub mod conformance;
pub mod matrix;
#[cfg(feature = "crash-points")]
pub mod simulation;
pub mod storage;
pub mod victim;
