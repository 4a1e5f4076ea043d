//! Deterministic simulation: the real runtime, with everything around it simulated and every choice made
//! by the numbers of a seed.
//!
//! - [`world`] is one run: processes that start, die, fall behind as zombies, and are started again. Zombies
//!   move between the moves of the others, and in the middle of them: before each effect on the outside;
//! - [`fate`] decides for each effect of a process on the outside how it goes, and notes it;
//! - [`storage`], [`topic`] and [`target`] are the simulated storage, input and output;
//! - [`job`] is the job, of a random [`shape`]; [`observers`] say what must be seen at its targets.
//!
//! A promise that is broken is reported with its seed, and `simulate --seed N` shows that run again, move by
//! move. What is not simulated: the disk under the state (what
//! would go to RocksDB goes into a sorted map) and the network, of which there is none.

mod cores;
pub mod fate;
pub mod job;
pub mod observers;
pub mod random;
pub(crate) mod scratch;
pub mod shape;
pub mod storage;
pub mod target;
pub mod topic;
pub mod world;

pub use cores::stay_on_one_core;
pub use world::{Report, Violation, reachable, run};
