//! Damage to what a job has stored: whole jobs on checkpoint directories with flipped bits, cuts, missing and
//! swapped files; and a disk that is full under their state.
#![allow(clippy::unwrap_used, dead_code)]

mod disk_full;
mod files;
#[path = "../engine/harness.rs"]
mod harness;
#[path = "../engine/oracle.rs"]
mod oracle;
