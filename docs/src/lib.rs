//! The book, as modules, so that `cargo test -p docs` compiles every Rust block of it and runs those
//! that are not marked `no_run`. There is no code here, and no crate depends on this one.
//!
//! Read the chapters as files: they are the `.md` files beside this crate's manifest.

#[doc = include_str!("../../README.md")]
pub mod readme {}

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}

#[doc = include_str!("../GUARANTEES.md")]
pub mod guarantees {}

#[doc = include_str!("../STYLE.md")]
pub mod style {}

#[doc = include_str!("../names.md")]
pub mod names {}

#[doc = include_str!("../first-job.md")]
pub mod first_job {}

#[doc = include_str!("../event-time.md")]
pub mod event_time {}

#[doc = include_str!("../state.md")]
pub mod state {}

#[doc = include_str!("../process-functions.md")]
pub mod process_functions {}

#[doc = include_str!("../files.md")]
pub mod files {}

#[doc = include_str!("../postgres.md")]
pub mod postgres {}

#[doc = include_str!("../formats.md")]
pub mod formats {}

#[doc = include_str!("../kafka.md")]
pub mod kafka {}

#[doc = include_str!("../writing-a-source.md")]
pub mod writing_a_source {}

#[doc = include_str!("../writing-a-sink.md")]
pub mod writing_a_sink {}

#[doc = include_str!("../testing-a-job.md")]
pub mod testing_a_job {}

#[doc = include_str!("../testing-a-connector.md")]
pub mod testing_a_connector {}

#[doc = include_str!("../servers.md")]
pub mod servers {}

#[doc = include_str!("../relay.md")]
pub mod relay {}

#[doc = include_str!("../operations.md")]
pub mod operations {}
