#![allow(clippy::unwrap_used, dead_code)]
#[path = "../engine/damage.rs"]
mod damage;
#[path = "../engine/harness.rs"]
mod harness;
#[path = "../engine/oracle.rs"]
mod oracle;
