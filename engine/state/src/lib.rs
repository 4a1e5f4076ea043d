//! Keyed state of Staunch: typed, checkpointed, larger than memory.
pub mod storage;
