//! A slow sink slows the sources down: memory stays flat, alignment short, the processor idle.

use crate::faulty::{Deed, Moment, faulty};
use crate::harness::{eventually, place};
use staunch::core::Request;
use staunch::prelude::*;
use staunch::{discard, generator};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// A kilobyte, so that a leak shows quickly.
type Record = (u64, [[u64; 32]; 4]);

fn record(_: u32, n: u64) -> Record {
    (n, [[n; 32]; 4])
}

/// Of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Processor time of this process.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Runs a test in a process of its own, where memory and time are its alone.
fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var("STAUNCH_ALONE").is_ok_and(|alone| alone == name) {
        return body();
    }
    let name_of_test = format!("flow_control::{name}");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name_of_test, "--nocapture"])
        .env("STAUNCH_ALONE", name)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

#[test]
fn memory_stays_flat_behind_a_sink_a_hundred_times_slower_than_the_source() {
    alone("memory_stays_flat_behind_a_sink_a_hundred_times_slower_than_the_source", || {
        let mut place = place().workers(2).every_ms(100);
        place.config.inflight_bytes = 8 << 20;
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        // About 50 batches a second and worker; the source makes some thousands.
        let sink = faulty(|now| match now {
            Moment::Write => Deed::Wait(Duration::from_millis(20)),
            _ => Deed::Go,
        });
        let output = sink.clone();
        let build = move |job: &Job<'_>| {
            let count = Arc::clone(&count);
            job.source("records", generator::sequence(None, 4, record))
                .inspect(move |_| {
                    count.fetch_add(1, SeqCst);
                })
                .key_by(|(n, _)| *n % 1000)
                .fold("last", |last: &mut u64, (n, _)| *last = n)
                .sink("output", output.clone());
            Ok(())
        };
        let running = place.start(build.clone());
        eventually("the first output", || !sink.committed().is_empty());
        let (before, busy_before, read_before) = (resident(), busy(), read.load(SeqCst));
        let began = Instant::now();
        let behind = || read.load(SeqCst) as f64 - running.metric("staunch_records_in_total", "output");
        for _ in 0..30 {
            std::thread::sleep(Duration::from_millis(100));
            let grown = resident().saturating_sub(before);
            assert!(grown < 48 << 20, "{grown} bytes more after a while");
            assert!(behind() < 40_000.0, "{} records are in flight", behind());
        }
        let (used, took, records) = (busy() - busy_before, began.elapsed(), read.load(SeqCst) - read_before);
        assert_eq!(running.stop(), Outcome::Stopped);

        // What as many records cost on this machine when nobody waits.
        sink.behave();
        let (busy_before, read_before) = (busy(), read.load(SeqCst));
        let running = place.start(build);
        eventually("as many are read", || read.load(SeqCst) >= read_before + records);
        assert_eq!(running.stop(), Outcome::Stopped);
        let cost = busy() - busy_before;
        // A worker that does not sleep while it waits takes a whole core.
        assert!(
            used < cost + took / 2,
            "with a slow sink it took {used:?} of processor time in {took:?}, with a fast one {cost:?} in all"
        );
    });
}

#[test]
fn an_idle_job_uses_hardly_any_processor_time() {
    alone("an_idle_job_uses_hardly_any_processor_time", || {
        let place = place().workers(2);
        let topic = crate::topic::Topic::<u64>::new(4);
        let source = topic.clone();
        let running = place.start(move |job| {
            let source = source.clone().event_time(|n| Timestamp::from_millis(*n as i64), Duration::ZERO);
            job.source("numbers", source.idle_after(Duration::from_secs(1)))
                .key_by(|n| *n)
                .window(Tumbling::of(Duration::from_secs(1)))
                .count("counts")
                .sink("output", discard::sink());
            Ok(())
        });
        for n in 0..200 {
            (0..4).for_each(|split| topic.push(split, [n]));
            std::thread::sleep(Duration::from_millis(5));
        }
        // What there was to do may take its time on a slow disk: one quiet time of three is enough.
        let hardly_any = Duration::from_millis(30);
        let mut used = Duration::MAX;
        for _ in 0..3 {
            if used > hardly_any {
                let before = busy();
                std::thread::sleep(Duration::from_secs(3));
                used = busy() - before;
            }
        }
        assert!(used <= hardly_any, "{used:?} of processor time in 3 s");
        assert_eq!(running.stop(), Outcome::Stopped);
    });
}

#[test]
fn a_stop_behind_a_slow_sink_is_prompt_because_little_is_in_flight() {
    let mut place = place().workers(2).every_ms(50);
    place.config.inflight_bytes = 256 << 10;
    let sink = faulty(|now| match now {
        Moment::Write => Deed::Wait(Duration::from_millis(50)),
        _ => Deed::Go,
    });
    let output = sink.clone();
    let running = place.start(move |job| {
        job.source("records", generator::sequence(None, 4, record))
            .map(|(n, _)| n)
            .sink("output", sink.clone());
        Ok(())
    });
    eventually("the first output", || !output.committed().is_empty());
    // Without a bound, what is in flight after this would take half a minute.
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    running.controls.request(Request::Stop);
    assert_eq!(running.wait().unwrap(), Outcome::Stopped);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    let waits = running.metric("staunch_checkpoint_alignment_seconds_count", "");
    let waited = running.metric("staunch_checkpoint_alignment_seconds_sum", "");
    assert!(waited / waits.max(1.0) < 1.0, "{waited} s in {waits} alignments");
}
