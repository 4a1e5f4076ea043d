//! What is one for the whole job: the protocol carried out, the log, committing, who reads which split.
//!
//! Nothing here touches a record or names the dataflow.

pub(super) mod acknowledging;
pub(super) mod committing;
pub(super) mod coordinator;
pub(super) mod log;
pub(super) mod message;
mod planted;
pub(super) mod processes;
mod publishing;
mod pulse;
mod requests;
pub(super) mod splits;
mod tally;
