//! Kafka: topics as a source, by positions in the checkpoint, and as a sink, by one transaction a commit.
//!
//! ```no_run
//! use staunch_core::{Job, Result};
//!
//! fn build(job: &Job) -> Result<()> {
//!     let orders = staunch_kafka::topics("127.0.0.1:9092", ["orders"]).group("billing");
//!     let _orders = job.source("orders", orders);
//!     Ok(())
//! }
//! ```
//!
//! This crate is transport: it moves bytes, and knows no format beyond [`Topics::text`] and [`Topics::json`]. It is a crate
//! of its own because it compiles librdkafka (C), which jobs without Kafka shall not pay for.
//!
//! Reading order: [`mod@source`] (what a topic is to the engine), its `reader`, its `queue` (all that is unsafe), [`settings`].

mod apart;
mod glob;
mod record;
pub mod settings;
pub mod sink;
pub mod source;

pub use record::{Incoming, Record};
pub use settings::Settings;
pub use sink::{Outgoing, sink};
pub use source::{Lost, Start, Topics, topics};
