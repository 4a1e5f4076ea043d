//! Breaking the victim at random moments, job after job, and auditing every record.

mod goal;
mod run;
mod schedule;
mod tally;

pub use goal::{Broken, Goal};
pub use run::soak;
pub use schedule::{Deed, Schedule, Step};
pub use tally::Tally;
