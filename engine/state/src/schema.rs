//! The shape of a step's types as text, so that a changed type is refused with a readable difference.

mod found;
mod reader;
#[cfg(test)]
mod tests;
mod text;
mod trace;
#[cfg(test)]
mod unfit_tests;

use crate::error::Problem;
use crate::key::{Namespace, StateKey, StateValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;

/// The shape of a step's entries, one line a fact: the three types, then every struct and enum with
/// its fields and variants, sorted by name. Postcard identifies fields and variants by position, so order
/// counts.
///
/// It is found out by deserialising made-up values. A type whose `Deserialize` accepts none of them has its
/// Rust name in the text, with what it is read from; what is read after it, up to the next enclosing option,
/// list, map or enum, stays unknown. The text says so, and a change there goes unnoticed.
#[must_use]
pub fn schema_of<K: StateKey, N: Namespace, V: StateValue>() -> String {
    let mut trace = trace::Trace::default();
    let key = trace.explore::<K>();
    let namespace = trace.explore::<N>();
    let value = trace.explore::<V>();
    text::write(&trace.found, &[("key", key), ("namespace", namespace), ("value", value)])
}

/// Why values of a type cannot be stored, as far as made-up values show it: the type that is the reason, in Rust,
/// and what is wrong with it.
#[must_use]
pub fn unfit<T: Serialize + DeserializeOwned>() -> Option<(String, Problem)> {
    let mut trace = trace::Trace::default();
    trace.explore::<T>();
    let (rust, problem) = trace.found.unfit?;
    let rust = if rust.is_empty() { std::any::type_name::<T>() } else { rust };
    Some((rust.to_owned(), problem))
}

/// A line-by-line difference: `-` lines are only in `old`, `+` lines only in `new`.
#[must_use]
pub fn schema_diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // Length of the longest common subsequence of the tails.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (sign, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', old[i - 1])
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        let _ = writeln!(text, "{sign} {line}");
    }
    text
}
