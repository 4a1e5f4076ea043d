//! What can be a key, a value and a namespace.

use crate::hash::stir;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::hash::Hash;

pub use crate::hash::hash_key;

/// A key of keyed state. Equal keys must serialise equally and hash equally, on every build that
/// reads the same checkpoints.
pub trait StateKey: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + 'static {}
impl<T: Hash + Eq + Clone + Serialize + DeserializeOwned + Send + 'static> StateKey for T {}

/// A value of keyed state.
pub trait StateValue: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> StateValue for T {}

/// The second part of an entry's identity: the window of a key, say. `()` where a key has one value.
/// The key alone decides the key group, so all namespaces of a key live on one worker.
pub trait Namespace: Copy + Hash + Eq + Ord + Debug + Serialize + DeserializeOwned + Send + 'static {
    /// Whether the entries of one namespace can be visited: a table keeps four bytes for each then.
    const LISTED: bool = true;

    /// The 32-bit hash for the place in the group's index, from the key's [`hash_key`] and the
    /// namespace. Not stored anywhere.
    fn index_hash(self, key_hash: u64) -> u32;
}

impl Namespace for () {
    const LISTED: bool = false;

    #[inline(always)]
    fn index_hash(self, key_hash: u64) -> u32 {
        key_hash as u32
    }
}

impl Namespace for u64 {
    #[inline(always)]
    fn index_hash(self, key_hash: u64) -> u32 {
        stir(key_hash, self)
    }
}

impl Namespace for i64 {
    #[inline(always)]
    fn index_hash(self, key_hash: u64) -> u32 {
        stir(key_hash, self as u64)
    }
}
