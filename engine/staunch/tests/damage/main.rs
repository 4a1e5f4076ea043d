//! Damage to what a job has stored: whole jobs on checkpoint directories with flipped bits, cuts, missing and
//! swapped files.
#![allow(clippy::unwrap_used, dead_code)]

mod files;
#[path = "../engine/harness.rs"]
mod harness;
#[path = "../engine/oracle.rs"]
mod oracle;
