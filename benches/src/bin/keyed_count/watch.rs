//! Measuring a run from beside it: wait until the keys are there, then look for a while.

use crate::variant::Measured;
use anyhow::Result;
use benches::process::{memory, processor_seconds};
use std::time::{Duration, Instant};

/// Part of a run that passes before the measured time begins, at least.
const WARM_UP: f64 = 0.4;
/// How often a run is looked at. More often than checkpoints come, so that each is seen alone.
const LOOK: Duration = Duration::from_millis(40);

/// Watches a run that lasts about `seconds`, more if its keys take longer to insert. `counted` says how
/// many records have been counted; `look` is called all through the measured time, its first call being
/// the beginning.
pub fn watch(
    keys: u64,
    seconds: f64,
    mut counted: impl FnMut() -> Result<u64>,
    mut look: impl FnMut() -> Result<()>,
) -> Result<Measured> {
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < WARM_UP * seconds || counted()? < keys {
        std::thread::sleep(LOOK);
    }
    let resident = memory()?.resident;
    look()?;
    let (began, before, processor) = (Instant::now(), counted()?, processor_seconds()?);
    while began.elapsed().as_secs_f64() < (1.0 - WARM_UP) * seconds {
        std::thread::sleep(LOOK);
        look()?;
    }
    let (after, took, used, memory) =
        (counted()?, began.elapsed(), processor_seconds()? - processor, memory()?);
    let records = (after - before) as f64;
    Ok(Measured {
        records_per_second: records / took.as_secs_f64(),
        processor_ns: used / records * 1e9,
        peak_bytes: memory.peak,
        resident_before_bytes: resident,
        resident_after_bytes: memory.resident,
        checkpoints: None,
    })
}
