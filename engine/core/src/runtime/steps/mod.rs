//! The steps of a graph as operators of the dataflow: sources, stateless and stateful steps, sinks.
//!
//! What they have in common stands apart: barriers ([`alignment`]), watermarks ([`marks`]), keys and their owners
//! ([`routing`]), named tables ([`states`]), batches as containers (`container`). A step knows its own worker; what it says to the coordinator
//! goes through the process it is in.

pub(super) mod alignment;
pub(crate) mod as_json;
mod container;
pub(super) mod marks;
pub(super) mod routing;
pub(super) mod sink;
pub(super) mod source;
pub(super) mod split;
pub(super) mod splits;
pub(super) mod stateful;
pub(super) mod states;
pub(super) mod transform;
