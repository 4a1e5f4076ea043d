//! A full disk under the state that does not fit into memory. (Under checkpoints and output:
//! `jobs/tests/processes/disk_full.rs`.)

use crate::harness::{eventually, place};
use crate::oracle::{Input, Total};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch_testing::small_disk::SmallDisk;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// So many changes that state is written as a whole again and again, which flushes what is spilled.
const INPUT: Input = Input { splits: 2, records: 500_000, keys: 150_000 };
const STATE_BYTES: usize = 100_000;

/// The job; every 256 records of a split it pauses for so many milliseconds.
fn totals(
    output: &Collected<Total>,
    pause_ms: &Arc<AtomicU64>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (output, pause_ms) = (output.clone(), Arc::clone(pause_ms));
    move |job| {
        let pause_ms = Arc::clone(&pause_ms);
        INPUT.totals(job, output.clone(), move |number| {
            if number % 256 == 0 {
                std::thread::sleep(Duration::from_millis(pause_ms.load(SeqCst)));
            }
        });
        Ok(())
    }
}

#[test]
fn when_the_disk_is_full_while_state_spills_the_job_ends_and_the_last_checkpoint_stays() {
    let (mut place, output) = (place(), collect::<Total>());
    (place.config.state_bytes, place.config.inflight_bytes) = (STATE_BYTES, 200_000);
    let folder = place.config.checkpoints.parent().unwrap().to_owned();
    let disk = match SmallDisk::mount(&folder.join("small"), 2 << 20) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED: a full disk under spilled state: {error}");
            return;
        }
    };

    // Room enough at first, for state of which most is spilled.
    place.config.state_dir = Some(disk.path().join("work"));
    // Slowly at first: after some checkpoints on a slow disk, too, most of the input must be left.
    let pause_ms = Arc::new(AtomicU64::new(10));
    let running = place.start(totals(&output, &pause_ms));
    eventually("some checkpoints", || running.metric("staunch_checkpoints_completed_total", "") >= 3.0);
    disk.fill().unwrap();
    pause_ms.store(1, SeqCst);
    let error = running.wait().unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    let before = output.committed();
    let good = place.manifests().pop().unwrap();
    assert!(!before.is_empty());

    // Still full, again and again: each start says why it ends, and what was decided stays.
    for workers in [2, 1, 2] {
        place.config.workers = workers;
        let error = place.fail(totals(&output, &pause_ms)).to_string();
        assert!(error.contains("No space left"), "{error}");
        assert!(error.contains("totals"), "it does not say which step: {error}");
        assert!(!error.contains("panicked") && !error.contains("internal"), "{error}");
        INPUT.check_prefix(&output.committed());
    }
    assert!(output.committed().len() >= before.len());
    let newest = place.manifests().pop().unwrap();
    assert!(newest.checkpoint >= good.checkpoint);

    // With room again, the result is that of a run without trouble.
    place.config.state_dir = Some(folder.join("large"));
    place.finish(totals(&output, &pause_ms));
    INPUT.check_all(&output.committed());
    assert!(output.committed().starts_with(&before));
}
