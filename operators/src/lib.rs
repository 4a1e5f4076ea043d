//! Operators of Staunch, built on nothing but the public API of the core: what is here could be written
//! outside.
//!
//! - [`aggregate`]: `count`, `fold`, `reduce`, `aggregate` over all records of a key;
//! - [`window`]: the same by windows of event time;
//! - [`process`]: functions of your own over records and timers, with named states.

pub mod aggregate;
pub mod process;
pub mod window;

pub use aggregate::{Aggregate, KeyedExt};
pub use process::{Cx, Needs, OrderedMap, Process, ProcessExt, SideOutput, Value};
pub use window::{Tumbling, Window, WindowExt, WindowResult, Windowed};
