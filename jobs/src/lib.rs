//! Looking at jobs from outside: what the demo and the tests of these jobs share.
//!
//! Promises independence: nothing in here uses the engine. A job is a [process](running) with arguments,
//! signals, a log and a metrics endpoint; its results are the [files](output) that it has published; and
//! what they must be is computed [in one go](batch) from the same input.

pub mod batch;
pub mod output;
pub mod running;
pub mod tables;
pub mod topics;
