//! One life of a job: taken over from its predecessor, made ready, run on workers, cleaned up after.

mod changes;
pub(super) mod run;
pub(super) mod stage;
pub(super) mod start;
pub(super) mod takeover;
pub(super) mod worker;
