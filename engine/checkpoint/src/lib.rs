//! The checkpoint protocol of Staunch, as pure decisions.
//!
//! Nothing here knows a clock, a file, a thread or a network: the runtime feeds events in and carries
//! out the actions that come back. That is what lets every interleaving be tested.
//!
//! Reading order: [`ids`] (the nouns), [`manifest`] (what one checkpoint consists of),
//! [`book`] (where splits stand, and what of that a manifest repeats), [`record`] (how
//! it is written into the log), [`log`] (why the log may be trusted), [`recovery`] (how a generation
//! begins), `branches` (what going back does to output), [`coordinator`] (how it decides checkpoints and has them committed), [`retention`] (what is
//! deleted afterwards).
//!
//! One generation, in the order in which the runtime does it:
//!
//! 1. Read the log, [`recovery::recover`], claim the fence's slot, [`log::confirm`] it. Anything but
//!    created: read the log again and start over.
//! 2. [`Coordinator::new`] and [`Coordinator::start`]; carry out its commits until
//!    [`Coordinator::is_recommitted`]; abort what is ours and not listed; load state, seek sources.
//! 3. Feed [`Event`]s to [`Coordinator::handle`] and carry out its [`Action`]s in their order, until
//!    [`Action::Stop`].

pub mod book;
mod branches;
pub mod coordinator;
pub mod ids;
pub mod log;
pub mod manifest;
pub mod record;
pub mod recovery;
pub mod retention;
#[cfg(test)]
mod testing;

pub use book::{Book, Segment, SegmentError, SegmentFile};
pub use coordinator::{Action, Blame, Coordinator, Event, Part, Parts, Published, Report, Setup, StopReason};
pub use ids::{CheckpointId, Generation, Slot};
pub use manifest::{
    Committable, FileKind, FileRef, Guarantee, Kind, Manifest, SegmentRef, Shard, SinkPart, SourcePart,
    SplitPart, StatePart,
};
pub use record::{Fence, Record, RecordError, Turn, parse_slot, slot_name};
pub use recovery::{Recovery, RecoveryError, Start, recover};
pub use retention::{Entry, Expiry};
