//! The core of Staunch: what a job is made of, and the runtime that executes it.
//!
//! Reading order: [`job`] and [`stream`] (how a program describes a job), [`source`] and [`sink`] (the
//! contracts of connectors; [`context`]: what they are told), [`step`] (the contract of stateful operators), [`time`] (event time),
//! [`mod@plan`] (the graph as data), [`mod@run`] (running it). Behind them stands the private `runtime`,
//! the only module that names the dataflow library.

pub mod background;
pub mod batch;
pub mod change;
pub mod config;
pub mod context;
pub mod control;
#[cfg(feature = "simulation")]
pub mod doubles;
pub mod error;
pub mod job;
pub mod metrics;
pub mod owner;
pub mod place;
pub mod plan;
pub mod run;
mod runtime;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod sink;
pub mod source;
pub mod source_ext;
pub mod staged;
pub mod step;
pub mod stream;
pub mod summary;
pub mod time;

pub use change::Change;
pub use config::{Guarantee, RunConfig, StartFrom};
pub use control::{Answer, Controls, Events, JobEvent, Outcome, Request};
pub use error::{Error, Result};
pub use job::Job;
pub use metrics::{Metrics, Progress};
pub use run::{Run, plan, run};
pub use source_ext::{IntoSource, SourceExt};
pub use staunch_checkpoint::{CheckpointId, Committable, Generation, Kind as CheckpointKind};
pub use staunch_crash as crash;
pub use staunch_state::{InMemoryStorage, Put, Storage, StorageError};
pub use staunch_state::{Namespace, OrderedTable, StateKey, StateValue, Table, TimerTable, hash_key};
pub use stream::{Keyed, StepOutputs, Stream};
pub use summary::Summary;
pub use time::Timestamp;
