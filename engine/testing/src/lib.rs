//! The proof: what breaks the engine on purpose, and checks what came out.
//!
//! - the binary `victim` is a job whose every output names its input, into files and into SQLite;
//! - [`audit`] checks its output. It shares no code with the engine: it reads files and tables, and
//!   knows by arithmetic what must be in them;
//! - [`victim`] starts the victim, kills it, stops it, and starts it again;
//! - [`matrix`] does so at every crash point.

pub mod audit;
pub mod matrix;
#[cfg(feature = "crash-points")]
pub mod simulation;
pub mod victim;
