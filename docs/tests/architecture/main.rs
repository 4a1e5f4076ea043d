//! Refuses what the architecture forbids: edges between crates, names in the wrong place, files that are
//! too long, work that was left undone, and documents that speak of things that are not there.
//!
//! Each rule is a function over text, so that the last tests of each file can plant a violation and see it
//! found. `crates` is about manifests, `code` about Rust files, `documents` about the book; `tree` finds them.

mod code;
mod crates;
mod documents;
mod tree;
