//! How keys, namespaces and values become bytes.
//!
//! An entry of a snapshot section is the postcard encoding of `(K, N, Option<V>)`, `None` meaning
//! deleted. All is written by [`Strict`], which refuses what could not be read again. A key of the RocksDB tier is the group (two bytes, big endian, so that a group is one
//! range) followed by the namespace and the key; its value is the encoded `V`.

use crate::error::Problem;
use crate::key::{Namespace, StateKey, StateValue};
use crate::strict::Strict;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A postcard output that appends to a buffer, so that entries follow one another without copies.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline(always)]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the encoding of a value; on an error the buffer is as before.
#[inline]
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Problem> {
    let (before, mut problem) = (out.len(), None);
    let mut serializer = postcard::Serializer { output: Append(out) };
    let outcome = value.serialize(Strict { out: &mut serializer, problem: &mut problem });
    outcome.map_err(|error| {
        out.truncate(before);
        problem.unwrap_or(Problem::Postcard(error))
    })
}

/// Reads one value off the front of these bytes, and writes it again: what comes out must be what was read.
/// Returns the bytes behind it.
pub(crate) fn read_back<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<&[u8], Problem> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(Problem::Unreadable)?;
    let (read, mut again) = (&bytes[..bytes.len() - rest.len()], Vec::new());
    append(&value, &mut again)?;
    if same(read, &again) { Ok(rest) } else { Err(Problem::Differs) }
}

/// Whether a value comes back as it is.
pub(crate) fn prove<T: Serialize + DeserializeOwned>(value: &T) -> Result<(), Problem> {
    let mut bytes = Vec::new();
    append(value, &mut bytes)?;
    if read_back::<T>(&bytes)?.is_empty() { Ok(()) } else { Err(Problem::Differs) }
}

/// Whether two encodings may be of equal values: the same bytes, in any order, because maps that hash have none.
fn same(one: &[u8], other: &[u8]) -> bool {
    let count = |bytes: &[u8]| {
        let mut counts = [0usize; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        counts
    };
    one == other || (one.len() == other.len() && count(one) == count(other))
}

/// Appends an entry of a section.
#[inline]
pub(crate) fn append_entry<K: StateKey, N: Namespace, V: StateValue>(
    key: &K,
    ns: N,
    value: &Option<V>,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    append(&(key, ns, value), out)
}

/// Takes one entry off the front of a section; returns it and the rest.
pub(crate) fn take_entry<K: StateKey, N: Namespace, V: StateValue>(
    bytes: &[u8],
) -> postcard::Result<((K, N, Option<V>), &[u8])> {
    postcard::take_from_bytes(bytes)
}

/// Appends a key of the RocksDB tier.
pub(crate) fn append_spill_key<K: StateKey, N: Namespace>(
    group: u16,
    key: &K,
    ns: N,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    out.extend_from_slice(&group.to_be_bytes());
    append(&(ns, key), out)
}

/// Reads a key of the RocksDB tier, after its two bytes of group.
pub(crate) fn read_spill_key<K: StateKey, N: Namespace>(bytes: &[u8]) -> postcard::Result<(N, K)> {
    match postcard::take_from_bytes(bytes)? {
        (found, []) => Ok(found),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Value = (String, Vec<Option<i64>>);

    proptest! {
        #[test]
        fn entries_that_follow_one_another_read_back_one_by_one(
            entries: Vec<(String, i64, Option<Value>)>,
        ) {
            let mut bytes = Vec::new();
            for (key, ns, value) in &entries {
                append_entry(key, *ns, value, &mut bytes).expect("everything here can be encoded");
            }
            let mut rest = &bytes[..];
            for entry in &entries {
                let (found, behind) = take_entry::<String, i64, Value>(rest).expect("it was encoded");
                prop_assert_eq!(&found, entry);
                rest = behind;
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_spilled_key_reads_back_and_nothing_may_follow_it(group: u16, key: (u64, String), ns: i64, more: u8) {
            let mut bytes = Vec::new();
            append_spill_key(group, &key, ns, &mut bytes).expect("everything here can be encoded");
            prop_assert_eq!(&bytes[..2], &group.to_be_bytes());
            let read = read_spill_key::<(u64, String), i64>(&bytes[2..]);
            prop_assert_eq!(read, Ok((ns, key)));
            bytes.push(more);
            prop_assert!(read_spill_key::<(u64, String), i64>(&bytes[2..]).is_err());
        }

        #[test]
        fn what_cannot_be_encoded_leaves_the_buffer_as_it_was(before: Vec<u8>) {
            /// Serialises something, then refuses.
            struct Refusing;
            impl Serialize for Refusing {
                fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                    Err(serde::ser::Error::custom("no"))
                }
            }
            let mut bytes = before.clone();
            prop_assert!(append(&(7_u32, Refusing), &mut bytes).is_err());
            prop_assert_eq!(bytes, before);
        }
    }
}
