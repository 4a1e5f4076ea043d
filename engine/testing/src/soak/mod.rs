//! Breaking the victim at random moments, job after job, and auditing every record.

mod run;
mod schedule;
mod tally;

pub use run::{Goal, soak};
pub use schedule::{Deed, Schedule, Step};
pub use tally::Tally;
