//! The crash matrix: every crash point x what happens there x to whom, on real processes.

mod cases;
mod run;
mod table;

pub use cases::{Case, Fault, cases};
pub use run::{Setting, run, run_unjudged};
pub use table::{Results, run_all};
