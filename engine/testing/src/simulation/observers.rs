//! What watches the targets: every row is checked when it becomes visible, against the input alone.

use super::shape::{Row, Shape, Total, WindowRow};
use super::target::Observer;
use super::topic::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

fn exists(shape: &Shape, record: Record) -> bool {
    shape.lengths.get(record.split as usize).is_some_and(|length| record.index < *length)
}

/// Every row is that of the next record of its key: none is missing, doubled or foreign.
pub fn counts(shape: Shape) -> Observer<Row> {
    let mut keys: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut seen: BTreeSet<(u32, u64)> = BTreeSet::new();
    Box::new(move |rows| {
        for row in rows {
            let Record { split, index } = row.record;
            if !exists(&shape, row.record) {
                return Err(format!("foreign: {row:?}"));
            }
            if shape.key(row.record) != row.key {
                return Err(format!("under a wrong key: {row:?}"));
            }
            if !seen.insert((split, index)) {
                return Err(format!("doubled: {row:?}"));
            }
            let (n, sum) = keys.entry(row.key).or_default();
            (*n, *sum) = (*n + 1, *sum + index);
            if (row.n, row.sum) != (*n, *sum) {
                return Err(format!("after {} rows of its key with sum {}: {row:?}", *n - 1, *sum - index));
            }
        }
        Ok(())
    })
}

/// Every window is seen once, and says what a loop over the input says; or less if records may have been late for it,
/// or the job is drained.
pub fn windows(shape: &Shape, drained: Arc<AtomicBool>) -> Observer<WindowRow> {
    let mut due = shape.windows();
    let late = shape.disorder_ms > 0;
    Box::new(move |rows| {
        for row in rows {
            match due.remove(&(row.key, row.start_ms)) {
                Some(total) if total == row.total => {}
                Some(total) if (late || drained.load(SeqCst)) && row.total.n < total.n => {}
                Some(total) => return Err(format!("{total:?} was expected: {row:?}")),
                None => return Err(format!("foreign or doubled: {row:?}")),
            }
        }
        Ok(())
    })
}

/// Every record is late once at most.
pub fn late(shape: Shape) -> Observer<Record> {
    let mut seen: BTreeSet<(u32, u64)> = BTreeSet::new();
    Box::new(move |records| {
        for record in records {
            if !exists(&shape, *record) {
                return Err(format!("foreign: {record:?}"));
            }
            if shape.disorder_ms == 0 {
                return Err(format!("late, though it came in time: {record:?}"));
            }
            if !seen.insert((record.split, record.index)) {
                return Err(format!("doubled: {record:?}"));
            }
        }
        Ok(())
    })
}

/// What all windows came to, late records with them.
///
/// # Errors
/// A window has more rows than one.
pub fn together(
    rows: &[WindowRow],
    late: &[Record],
    shape: &Shape,
) -> Result<BTreeMap<(u64, i64), Total>, String> {
    let mut all = BTreeMap::new();
    for row in rows {
        if all.insert((row.key, row.start_ms), row.total).is_some() {
            return Err(format!("target `windows`: doubled: {row:?}"));
        }
    }
    for record in late {
        all.entry((shape.key(*record), shape.window_of(*record))).or_default().add(*record);
    }
    Ok(all)
}
