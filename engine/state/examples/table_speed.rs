//! Speed of the memory tier on uniformly random keys: updates beside the design prototype's loop and
//! std's HashMap, and the cost of freezing.
//!
//! `cargo run --release -p staunch-state --example table_speed [batch] [thousand keys]...`

use staunch_state::{Assignment, FreezeMode, Groups, SpillShared, Table, TableConfig, hash_key};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Updates of one round, and rounds: the contenders take turns, so that a busy machine hits all alike.
const UPDATES: u64 = 4_000_000;
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let batch = args.next().transpose()?.unwrap_or(4096) as usize;
    let mut sizes = args.collect::<Result<Vec<_>, _>>()?;
    if sizes.is_empty() {
        sizes = vec![1000, 10_000];
    }
    for thousands in sizes {
        let keys = thousands * 1000;
        println!("{thousands} thousand random u64 keys, u64 values, batches of {batch}");
        let mut reference = Reference::new();
        let mut map: HashMap<u64, u64> = HashMap::new();
        let mut table = table();
        let mut hashes = Vec::new();
        compare(
            keys,
            batch,
            &mut [
                ("prototype loop", &mut |keys| reference.update(keys)),
                ("std HashMap", &mut |keys| {
                    keys.drain(..).for_each(|key| *map.entry(key).or_insert(0) += 1);
                }),
                ("our table", &mut |keys| update(&mut table, &mut hashes, keys)),
            ],
        );
        drop((reference, map));
        for mode in [FreezeMode::Base, FreezeMode::Delta] {
            freeze(&mut table, mode)?;
            // All is dirty again for the delta.
            timed(keys, batch, &scatter, &mut |keys| update(&mut table, &mut hashes, keys));
        }
    }
    Ok(())
}

fn update(table: &mut Table<u64, (), u64>, hashes: &mut Vec<u64>, keys: &mut Vec<u64>) {
    hashes.clear();
    hashes.extend(keys.iter().map(hash_key));
    let outcome = table.update_batch(hashes, keys, |key| (key, ()), |_, n| count(n));
    outcome.expect("nothing is spilled");
}

fn count(value: &mut Option<u64>) {
    let next = value.unwrap_or(0) + 1;
    *value = Some(black_box(next));
}

fn table() -> Table<u64, (), u64> {
    let groups = Groups::default();
    Table::new(TableConfig {
        name: "speed".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: std::env::temp_dir().join("staunch-table-speed"),
        spill: SpillShared::with_defaults(),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    })
}

/// Fills each contender with every key once, then lets them take turns at random keys.
fn compare(keys: u64, batch: usize, contenders: &mut [(&str, &mut dyn FnMut(&mut Vec<u64>))]) {
    let fills: Vec<_> =
        contenders.iter_mut().map(|(_, update)| timed(keys, batch, &scatter, update)).collect();
    let mut rounds = vec![Vec::new(); contenders.len()];
    for round in 0..ROUNDS as u64 {
        for ((_, update), times) in contenders.iter_mut().zip(&mut rounds) {
            let key = |n: u64| scatter(mix(n + round * UPDATES) % keys);
            times.push(timed(UPDATES, batch, &key, update));
        }
    }
    for (((name, _), times), (fill_ns, longest_fill)) in contenders.iter().zip(&mut rounds).zip(fills) {
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        println!(
            "  {name:<15} {:6.1} ns/update (median of {ROUNDS}; best {:5.1}), longest batch {:5.2} ms; filling {fill_ns:6.1} ns/key, longest batch {:6.2} ms",
            times[ROUNDS / 2].0,
            times[0].0,
            times[ROUNDS / 2].1.as_secs_f64() * 1e3,
            longest_fill.as_secs_f64() * 1e3,
        );
    }
}

/// Nanoseconds of processor time an update, and the longest batch by the clock.
fn timed(
    total: u64,
    batch: usize,
    key: &dyn Fn(u64) -> u64,
    update: &mut dyn FnMut(&mut Vec<u64>),
) -> (f64, Duration) {
    let (mut spent, mut longest, mut buffer) = (Duration::ZERO, Duration::ZERO, Vec::new());
    let mut at = 0;
    while at < total {
        let end = (at + batch as u64).min(total);
        buffer.clear();
        buffer.extend((at..end).map(key));
        let (started, began) = (Instant::now(), processor_time());
        update(&mut buffer);
        let took = started.elapsed();
        spent += processor_time().zip(began).map_or(took, |(now, began)| now.saturating_sub(began));
        (longest, at) = (longest.max(took), end);
    }
    (spent.as_nanos() as f64 / total as f64, longest)
}

/// Processor time of this thread, where the kernel tells it: other programs do not count then.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// An odd multiplier permutes 2^64 and so scatters the keys over the whole width.
fn scatter(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn freeze(table: &mut Table<u64, (), u64>, mode: FreezeMode) -> Result<(), staunch_state::StateError> {
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    table.begin_freeze(mode)?;
    loop {
        let slice = Instant::now();
        let finished = table.freeze_slice(4096)?;
        longest = longest.max(slice.elapsed());
        if finished {
            break;
        }
    }
    let spent = started.elapsed();
    let frozen = table.take_frozen()?;
    println!(
        "  freeze {mode:?}: {:.1} ns/entry, longest slice of 4096 {:.3} ms, {:.1} bytes/entry, {} entries",
        spent.as_nanos() as f64 / frozen.entries() as f64,
        longest.as_secs_f64() * 1e3,
        frozen.bytes() as f64 / frozen.entries() as f64,
        frozen.entries(),
    );
    drop(frozen);
    Ok(())
}

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The design prototype's keyed count: one index of u32 over one slab, a dirty list, prefetch.
struct Reference {
    index: Vec<u32>,
    slab: Vec<(u64, u64, u32)>,
    dirty: Vec<u32>,
    hashes: Vec<u64>,
}

impl Reference {
    fn new() -> Self {
        let index = vec![u32::MAX; 1 << 16];
        Self { index, slab: Vec::new(), dirty: Vec::new(), hashes: Vec::new() }
    }

    fn update(&mut self, keys: &mut Vec<u64>) {
        for chunk in keys.chunks(64) {
            if (self.slab.len() + 64) * 2 > self.index.len() {
                self.grow();
            }
            let mask = self.index.len() - 1;
            self.hashes.clear();
            for key in chunk {
                let hash = mix(*key ^ 0x5555);
                self.hashes.push(hash);
                prefetch(self.index.as_ptr().wrapping_add(hash as usize & mask));
            }
            for hash in &self.hashes {
                let at = self.index[*hash as usize & mask];
                if at != u32::MAX {
                    prefetch(self.slab.as_ptr().wrapping_add(at as usize));
                }
            }
            for (key, hash) in chunk.iter().zip(&self.hashes) {
                let mut p = *hash as usize & mask;
                let at = loop {
                    let at = self.index[p];
                    if at == u32::MAX {
                        let at = self.slab.len() as u32;
                        self.slab.push((*key, 0, 0));
                        self.index[p] = at;
                        break at;
                    }
                    if self.slab[at as usize].0 == *key {
                        break at;
                    }
                    p = (p + 1) & mask;
                };
                let entry = &mut self.slab[at as usize];
                entry.1 = black_box(entry.1 + 1);
                if entry.2 != 1 {
                    entry.2 = 1;
                    self.dirty.push(at);
                }
            }
        }
        keys.clear();
    }

    fn grow(&mut self) {
        let mask = self.index.len() * 2 - 1;
        let mut index = vec![u32::MAX; mask + 1];
        for (at, entry) in self.slab.iter().enumerate() {
            let mut p = mix(entry.0 ^ 0x5555) as usize & mask;
            while index[p] != u32::MAX {
                p = (p + 1) & mask;
            }
            index[p] = at as u32;
        }
        self.index = index;
    }
}

fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch neither reads nor faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
