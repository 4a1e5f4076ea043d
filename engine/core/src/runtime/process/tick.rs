//! The dataflow's timestamp: epoch in the upper half, step of progress in the lower.
//!
//! An epoch ends with a checkpoint of the same number. Steps are a few milliseconds of wall clock, the
//! same on all workers; they bound what is in flight and order watermarks. One totally ordered integer
//! is the cheapest case for progress tracking.

pub(crate) type Tick = u64;

pub(crate) fn tick(epoch: u32, step: u32) -> Tick {
    u64::from(epoch) << 32 | u64::from(step)
}

pub(crate) fn epoch(tick: Tick) -> u32 {
    (tick >> 32) as u32
}

pub(crate) fn step(tick: Tick) -> u32 {
    tick as u32
}
