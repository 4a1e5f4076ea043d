//! Speed of ordered state in memory: timers set at random times and taken when they are due, beside std's BTreeSet of
//! the same pairs, and what a freeze of them costs.
//!
//! `cargo run --release -p staunch-state --example ordered_speed [thousand timers]`

use staunch_state::{
    AnyTable, Assignment, FreezeMode, Groups, SpillShared, TableConfig, TimerTable, hash_key,
};
use std::collections::BTreeSet;
use std::time::Instant;

/// Timers taken at a time, and entries frozen at a time.
const SLICE: usize = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let thousands = std::env::args().nth(1).map_or(Ok(1000), |arg| arg.parse::<u64>())?;
    let count = thousands * 1000;
    println!("{thousands} thousand timers (i64, u64), each time and key random");
    let timers: Vec<(i64, u64)> =
        (0..count).map(|n| ((scatter(n) >> 24) as i64, scatter(n + count))).collect();

    let mut set = BTreeSet::new();
    timed("BTreeSet: insert", count, || timers.iter().for_each(|timer| _ = set.insert(*timer)));
    timed("BTreeSet: pop_first", count, || while set.pop_first().is_some() {});

    let groups = Groups::default();
    let mut table: TimerTable<i64, u64> = TimerTable::new(TableConfig {
        name: "speed".to_owned(),
        groups,
        owned: Assignment::even(groups, 1).of_worker(0).collect(),
        memory_budget_bytes: usize::MAX,
        spill_dir: std::env::temp_dir().join("staunch-ordered-speed"),
        spill: SpillShared::with_defaults(),
        frozen_bytes: TableConfig::FROZEN_BYTES,
    });
    for round in ["first", "second"] {
        timed(&format!("TimerTable: set, {round} time"), count, || {
            for (time, key) in &timers {
                table.set(hash_key(key), time, key).expect("nothing is spilled");
            }
        });
    }
    table.begin_freeze(FreezeMode::Delta)?;
    timed("TimerTable: freeze", count, || {
        let mut budget = SLICE;
        while !table.freeze_slice(&mut budget).expect("integers can be serialised") {
            budget = SLICE;
        }
    });
    let frozen = table.take_frozen()?;
    println!("  {} entries frozen, {:.1} bytes each", frozen.entries(), frozen.bytes() as f64 / count as f64);
    let (mut due, mut taken) = (Vec::new(), 0);
    timed("TimerTable: take_due", count, || {
        // In a hundred steps of time, as watermarks come.
        for step in 1..=100 {
            let upto = (1_i64 << 40) / 100 * step + 100;
            while table.take_due(&upto, SLICE, &mut due).expect("nothing is spilled") {
                taken += std::mem::take(&mut due).len() as u64;
            }
            taken += std::mem::take(&mut due).len() as u64;
        }
    });
    assert_eq!(taken, count);
    Ok(())
}

fn timed(what: &str, count: u64, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    println!("  {what:<30} {:7.1} ns each", began.elapsed().as_nanos() as f64 / count as f64);
}

/// An odd multiplier permutes 2^64 and so scatters the numbers over the whole width.
fn scatter(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (n ^ (n >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}
