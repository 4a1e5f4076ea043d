//! Collections as sources, and a transactional sink in memory, for tests.
//!
//! [`Collected`] is the reference implementation of the contract in [`staunch_core::sink`]: everything
//! that a sink must do, with a map in place of a target. Read it before writing a sink.

mod collected;
mod collection;

pub use collected::{Collected, CollectedCommitter, CollectedWriter, collect};
pub use collection::{Collection, CollectionReader, CollectionSplit, collection};
