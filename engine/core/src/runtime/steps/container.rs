//! Batches as the dataflow's containers: how they are counted, and how they cross process borders.

use crate::batch::Batch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

impl<T> Accountable for Batch<T> {
    fn record_count(&self) -> i64 {
        self.items.len() as i64
    }
}

/// Encoding between processes; never stored. The traits have no way to report an error: bytes that do
/// not decode come from a peer of another build, which the handshake refuses beforehand.
impl<T: Serialize + DeserializeOwned> ContainerBytes for Batch<T> {
    fn from_bytes(bytes: Bytes) -> Self {
        let (items, times, hashes) =
            postcard::from_bytes(&bytes).expect("a peer of the same build encoded this batch");
        Self { items, times, hashes }
    }

    fn length_in_bytes(&self) -> usize {
        postcard::experimental::serialized_size(&(&self.items, &self.times, &self.hashes))
            .expect("records encode, or they could not be kept in state either")
    }

    fn into_bytes<W: std::io::Write>(&self, writer: &mut W) {
        postcard::to_io(&(&self.items, &self.times, &self.hashes), writer)
            .expect("writing into a buffer of the exchange does not fail");
    }
}
