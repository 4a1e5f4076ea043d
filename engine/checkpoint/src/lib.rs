//! The checkpoint protocol of Staunch, as pure decisions.
//!
//! Nothing here knows a clock, a file, a thread or a network: the runtime feeds events in and carries
//! out the actions that come back. That is what lets every interleaving be tested.
//!
//! Reading order: [`ids`] (the nouns), [`manifest`] (what one checkpoint consists of), then the rest.

pub mod ids;
pub mod manifest;

pub use ids::{CheckpointId, Generation, Slot};
pub use manifest::{
    Committable, FileKind, FileRef, Kind, Manifest, Shard, SinkPart, SourcePart, SplitPart, StatePart,
};
