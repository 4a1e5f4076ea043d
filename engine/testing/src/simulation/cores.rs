//! Where the threads of a simulation run.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the calling thread, and those that it starts from now on, to one of the cores it may use.
///
/// Of all the threads of a simulated run one is awake at a time, and handing over to a thread on the same core
/// takes a third of the time. Where it cannot be done, everything is only slower.
pub fn stay_on_one_core(number: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    if cores.is_empty() {
        return;
    }
    let mut one = CpuSet::new();
    one.set(cores[number % cores.len()]);
    let _ = sched_setaffinity(None, &one);
}
