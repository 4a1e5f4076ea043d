//! What all threads of a process share: the clock of the dataflow, the time on the wall, I/O threads, and how a failure
//! of one becomes the end of all.

pub(super) mod agreed;
pub(super) mod clock;
pub(super) mod inbox;
pub(super) mod io;
pub(super) mod link;
pub(super) mod shared;
pub(super) mod threads;
pub(super) mod tick;
pub(super) mod wall_clock;
