//! Where entries lie: segments that are never moved, so that growth copies nothing.
//!
//! A segment is about 32 KiB of cache-line-aligned chunks of 16 places. Memory is touched chunk by
//! chunk, so a small table costs little.

const LANES: usize = 16;

/// Sixteen places, aligned so that an entry of 32 or 64 bytes never straddles a cache line.
#[repr(align(64))]
struct Chunk<T>([Option<T>; LANES]);

/// A growing array of places with stable addresses and a free list.
pub(super) struct Slab<T> {
    segments: Vec<Vec<Chunk<T>>>,
    length: u32,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// Places in a segment, as a power of two.
    const SHIFT: u32 = match size_of::<Option<T>>() {
        0..=32 => 10,
        33..=64 => 9,
        65..=128 => 8,
        129..=256 => 7,
        257..=512 => 6,
        _ => 5,
    };
    const MASK: u32 = (1 << Self::SHIFT) - 1;

    pub(super) fn new() -> Self {
        Self { segments: Vec::new(), length: 0, free: Vec::new() }
    }

    /// Places that were ever used: every position is below.
    #[inline(always)]
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// Places that hold an entry.
    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        self.length as usize - self.free.len()
    }

    #[inline(always)]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        let chunk = &self.segments[(at >> Self::SHIFT) as usize][((at & Self::MASK) as usize) / LANES];
        chunk.0[at as usize % LANES].as_ref()
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let chunk = &mut self.segments[(at >> Self::SHIFT) as usize][((at & Self::MASK) as usize) / LANES];
        chunk.0[at as usize % LANES].as_mut()
    }

    /// The address of a place, for a prefetch.
    #[inline(always)]
    pub(super) fn address(&self, at: u32) -> *const Option<T> {
        let chunk = &self.segments[(at >> Self::SHIFT) as usize][((at & Self::MASK) as usize) / LANES];
        &raw const chunk.0[at as usize % LANES]
    }

    /// Stores an entry in a free place and returns the place.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if let Some(at) = self.free.pop() {
            *self.place(at) = Some(entry);
            return at;
        }
        let at = self.length;
        if at & Self::MASK == 0 {
            self.segments.push(Vec::with_capacity((1 << Self::SHIFT) / LANES));
        }
        if (at as usize).is_multiple_of(LANES)
            && let Some(segment) = self.segments.last_mut()
        {
            segment.push(Chunk([const { None }; LANES]));
        }
        *self.place(at) = Some(entry);
        self.length += 1;
        at
    }

    /// Empties a place.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let entry = self.place(at).take();
        if entry.is_some() {
            self.free.push(at);
        }
        entry
    }

    fn place(&mut self, at: u32) -> &mut Option<T> {
        let chunk = &mut self.segments[(at >> Self::SHIFT) as usize][((at & Self::MASK) as usize) / LANES];
        &mut chunk.0[at as usize % LANES]
    }
}
