//! The attack: the victim is struck at the Nth file operation, goes on, and is judged.
//!
//! The crash matrix breaks the victim where the code says that it may break. This knows nothing of the code: it counts
//! what the process does to files (the library `staunch-shim`, loaded before libc), and strikes at one of these
//! operations, whoever does it: the engine, a connector, SQLite, RocksDB. [`storm`] does what supervisors and people do:
//! seven copies at once, restarts that come to nothing, `--from` by a start that keeps dying.

mod cases;
mod fault;
mod learn;
mod run;
mod storms;
mod table;

pub use cases::{Case, Life, Strike, cases, some};
pub use fault::{Ends, Fault};
pub use learn::{Learned, Traced, learn};
pub use run::{Outcome, run};
pub use storms::{Storm, storm};
pub use table::{Results, run_all, weather};

/// Why there can be no attack on this system.
pub const SKIPPED: Option<&str> = if cfg!(all(target_os = "linux", target_env = "gnu")) {
    None
} else {
    Some("the attack takes the place of functions of glibc by LD_PRELOAD, and this is another system")
};
