//! kill -9 at random moments, again and again, on changing numbers of workers.

use crate::support::Case;
use crate::support::observer::{Observer, airport_and_hour};
use crate::support::random::{Random, seeds};
use std::time::Duration;

const KILLS: u32 = 10;
/// Latest moment of a kill after the start. With the rates it is chosen so that all kills together come before
/// the end of the input.
const LATEST_MS: u64 = 700;

#[test]
fn killed_ten_times_at_random_moments_the_result_is_the_batch_result() {
    side_by_side(seeds(8), |seed| kill_and_rerun(seed, &Case::flights(), 2000));
}

#[test]
fn the_same_with_five_input_files() {
    // Each worker reads at this rate, and each file holds a fifth of every day.
    let every_fifth = |row, _| row % 5;
    side_by_side(seeds(4), |seed| kill_and_rerun(1000 + seed, &Case::flights_in_files(5, every_fifth), 1000));
}

/// Killing takes waiting, not work.
fn side_by_side(seeds: Vec<u64>, test: impl Fn(u64) + Sync) {
    for some in seeds.chunks(4) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = some
                .iter()
                .map(|&seed| {
                    (
                        seed,
                        scope.spawn({
                            let test = &test;
                            move || test(seed)
                        }),
                    )
                })
                .collect();
            for (seed, thread) in threads {
                assert!(thread.join().is_ok(), "seed {seed} failed");
            }
        });
    }
}

fn kill_and_rerun(seed: u64, case: &Case, rate: u64) {
    let mut random = Random::seeded(seed);
    let every = random.pick(&["10ms", "50ms", "200ms"]);
    let observer = Observer::of(&case.output(), airport_and_hour);
    let mut story = format!("seed {seed}, checkpoint every {every}:");
    for _ in 0..KILLS {
        let workers = 1 + random.below(3);
        let moment = Duration::from_millis(random.below(LATEST_MS));
        story += &format!(" {workers} workers {moment:?},");
        let mut running =
            case.start(&format!("--workers {workers} --checkpoint-every {every} --rate {rate}"));
        std::thread::sleep(moment);
        assert!(
            running.ended().unwrap().is_none(),
            "{story} ended before the kill:\n{}",
            running.log().join("\n")
        );
        running.kill().unwrap();
    }
    let workers = 1 + random.below(3);
    println!("{story} then {workers} workers to the end");
    // At full speed: how fast it reads is no part of the job.
    case.complete(&format!("--workers {workers} --checkpoint-every {every}"));
    let (files, looks) = observer.finish();
    println!("seed {seed}: {files} files, looked at {looks} times");
    case.assert_batch_result();
}
