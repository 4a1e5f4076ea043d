//! How long it takes from a kill until the job does something new.

use crate::support::{Case, measured};
use jobs::running::{Metrics, free_address, until};
use std::time::{Duration, Instant};

const TIMES: usize = 5;
/// Far above what is aimed at (1 s): this is about getting going at all.
const LIVENESS: Duration = Duration::from_secs(10);

#[test]
fn after_a_kill_the_first_new_record_comes_soon() {
    let case = Case::flights();
    let mut times = Vec::new();
    // The first line takes a day of flights. From then on slowly: the input must last for all kills.
    let mut running = case.start("--workers 2 --rate 2000 --checkpoint-every 100ms");
    case.wait_for_lines(&running, 1);
    for _ in 0..TIMES {
        let address = free_address().unwrap();
        let killed = Instant::now();
        running.kill().unwrap();
        running = case.start(&format!("--workers 2 --rate 500 --checkpoint-every 100ms --metrics {address}"));
        let read = || {
            let metrics = Metrics::of(address)?;
            (metrics.sum("staunch_records_in_total", &["step=\"flights\""]) > 0.0).then(|| killed.elapsed())
        };
        let time = until(LIVENESS, read);
        times.push(time.unwrap_or_else(|| {
            panic!("nothing new {LIVENESS:?} after the kill:\n{}", running.log().join("\n"))
        }));
        let lines = case.lines().len();
        case.wait_for_lines(&running, lines + 1);
    }
    times.sort_unstable();
    measured(&format!(
        "kill to first new record at small state: median {:?}, longest {:?} of {TIMES} (aim 1 s)",
        times[TIMES / 2],
        times[TIMES - 1]
    ));
}
