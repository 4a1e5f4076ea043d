//! Puts and deletes that are written together.

use std::ops::Range;

/// In the order in which they were asked for.
#[derive(Default)]
pub(crate) struct Writes {
    bytes: Vec<u8>,
    /// A key, and a value behind it; none: the key is deleted.
    writes: Vec<(Range<usize>, Option<Range<usize>>)>,
}

impl Writes {
    pub(crate) fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (self.keep(key.as_ref()), self.keep(value.as_ref()));
        self.writes.push((key, Some(value)));
    }

    pub(crate) fn delete(&mut self, key: impl AsRef<[u8]>) {
        let key = self.keep(key.as_ref());
        self.writes.push((key, None));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Keys, with the values they get.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        self.writes.iter().map(move |(key, value)| (bytes(key), value.as_ref().map(bytes)))
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }
}
