//! Operators of Staunch, built on nothing but the public API of the core: what is here could be written
//! outside.
//!
//! - [`aggregate`]: `count`, `fold`, `reduce`, `aggregate` over all records of a key;
//! - [`window`]: the same by windows of event time.

pub mod aggregate;
pub mod window;

pub use aggregate::{Aggregate, KeyedExt};
pub use window::{Tumbling, Window, WindowExt, WindowResult, Windowed};
