//! A job that waits for more, and does nothing else meanwhile.

use crate::support::{Case, ended, example, measured, signal};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the idle job is watched.
const IDLE: Duration = Duration::from_secs(5);

/// Processor time that a process has used so far.
fn processor_time(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name of the program, in parentheses, may hold anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // SAFETY: sysconf(3) takes no pointers.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / a_second as f64)
}

/// How often threads of a process have woken up by now.
fn wakes(id: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let of_task = |task: fs::DirEntry| {
        // A thread that has ended meanwhile counts no more.
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    tasks.map(|task| of_task(task.unwrap())).sum()
}

/// Processor time, in seconds, that a thread takes to wake up and look at a MiB of memory, for each time.
fn cost_of_waking() -> f64 {
    const TIMES: u32 = 80;
    let mut memory = vec![0_u8; 1 << 20];
    let own = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap() as f64 / 1e9
    };
    let before = own();
    for _ in 0..TIMES {
        std::thread::sleep(Duration::from_millis(50));
        memory.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
    }
    assert!(memory.iter().step_by(64).all(|byte| u32::from(*byte) == TIMES));
    (own() - before) / f64::from(TIMES)
}

#[test]
fn an_idle_job_uses_less_than_a_hundredth_of_a_core() {
    let Some(example) = example("follow_lines") else { return };
    let case = Case::new(example, PathBuf::new()).with_input("lines.txt", "one\ntwo\none\n");
    let mut running = case.start("--workers 2 --checkpoint-every 100ms");
    case.wait_for_lines(&running, 3);
    std::thread::sleep(Duration::from_millis(500));
    // Some virtual machines take a millisecond to wake a thread and to find its memory again. What that costs here
    // is measured beside it: where waking alone takes half of the hundredth, the job may use twice of that, and
    // never a hundredth more than it.
    let bare = std::thread::spawn(cost_of_waking);
    let (before, woken, began) = (processor_time(running.id()), wakes(running.id()), Instant::now());
    std::thread::sleep(IDLE);
    let seconds = began.elapsed().as_secs_f64();
    let used = (processor_time(running.id()) - before).as_secs_f64() / seconds;
    let woken = (wakes(running.id()) - woken) as f64 / seconds;
    let waking = woken * bare.join().unwrap();
    let all = format!(
        "an idle job on 2 workers uses {:.2} % of a core for {woken:.0} wake-ups a second, which alone take {:.2} % here",
        used * 100.0,
        waking * 100.0
    );
    measured(&all);
    assert!(woken < 200.0 && (used < 0.01 || used < waking + waking.min(0.01)), "{all}");
    signal(&running, libc::SIGTERM);
    assert_eq!(ended(&mut running).code, Some(0));
}

#[test]
fn lines_that_are_added_are_counted_soon_and_across_a_kill() {
    let Some(example) = example("follow_lines") else { return };
    let case = Case::new(example, PathBuf::new()).with_input("lines.txt", "one\ntwo\none\n");
    let append = |text: &str| {
        let mut file = fs::File::options().append(true).open(&case.input).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let mut running = case.start("--workers 2 --checkpoint-every 50ms");
    case.wait_for_lines(&running, 3);
    let added = Instant::now();
    append("two\n");
    case.wait_for_lines(&running, 4);
    measured(&format!(
        "a line added to a followed file is published after {:?} (checkpoint every 50 ms)",
        added.elapsed()
    ));
    running.kill().unwrap();
    append("one\nthree");
    let mut running = case.start("--workers 1 --checkpoint-every 50ms");
    case.wait_for_lines(&running, 5);
    append("fold\n");
    case.wait_for_lines(&running, 6);
    signal(&running, libc::SIGTERM);
    assert_eq!(ended(&mut running).code, Some(0));
    assert_eq!(case.lines(), ["one,1", "one,2", "one,3", "threefold,1", "two,1", "two,2"]);
}
