//! The core of Staunch: what a job is made of, and the runtime that executes it.
//!
//! Reading order: [`source`] and [`sink`] (the contracts of connectors), [`time`] (event time).

pub mod background;
pub mod error;
pub mod sink;
pub mod source;
pub mod source_ext;
pub mod time;

pub use error::{Error, Result};
pub use staunch_checkpoint::{CheckpointId, Committable, Generation};
pub use staunch_state::storage::Storage;
pub use time::Timestamp;
