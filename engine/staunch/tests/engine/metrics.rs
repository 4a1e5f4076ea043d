//! What a run leaves in its metrics.

use crate::faulty::{Deed, Moment, faulty};
use crate::harness::{Running, eventually, place};
use crate::oracle::{Input, Total};
use crate::topic::Topic;
use staunch::core::Request;
use staunch::memory::collect;
use staunch::prelude::*;
use staunch::{discard, generator};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::SystemTime;

#[test]
fn after_a_run_every_promised_metric_is_there_and_has_a_sane_value() {
    let input = Input { splits: 4, records: 50_000, keys: 100 };
    let (mut place, output) = (place().workers(2).every_ms(5), collect::<Total>());
    let sink = output.clone();
    let build = move |job: &Job<'_>| {
        input.totals(job, sink.clone(), |_| {});
        Ok(())
    };
    let running = place.start(build.clone());
    assert_eq!(running.stop(), Outcome::Stopped);
    place.config.workers = 1;
    let running = place.start(build);
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    input.check_all(&output.committed());

    let text = running.metrics.render().unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("staunch_") && line.contains("job=\"test\""), "{line}");
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
    }
    let all = 200_000.0;
    let get = |name: &str, labels: &str| running.metric(&format!("staunch_{name}"), labels);
    let read = get("records_in_total", "step=\"numbers\"");
    assert!(read > 0.0 && read <= all);
    assert_eq!(get("records_in_total", "step=\"totals\""), read);
    assert_eq!(get("records_out_total", "step=\"totals\""), read);
    assert_eq!(get("records_in_total", "step=\"output\""), read);
    assert!(get("bytes_in_total", "step=\"numbers\"") >= read);
    assert_eq!(get("late_records_total", ""), 0.0);
    assert_eq!(get("dead_letter_records_total", ""), 0.0);
    assert_eq!(get("inflight_bytes", ""), 0.0);
    assert_eq!(get("alignment_stash_records", ""), 0.0);
    assert!(!text.contains("staunch_watermark_lag_seconds{"), "there is no event time");
    assert_eq!(get("rocksdb_keys", ""), 0.0);
    assert_eq!(get("state_keys", ""), 400.0);
    assert!(get("state_bytes", "") > 400.0 * 24.0);
    assert!((0.5..=1.0).contains(&get("state_cache_hit_ratio", "")));
    assert!(get("commits_total", "result=\"committed\"") >= 1.0);
    assert_eq!(get("commits_total", "result=\"refused\""), 0.0);
    let completed = get("checkpoints_completed_total", "");
    assert!(completed >= 1.0);
    assert_eq!(get("checkpoints_failed_total", ""), 0.0);
    assert_eq!(get("checkpoint_duration_seconds_count", ""), completed);
    assert!(get("last_checkpoint_id", "") >= completed);
    for name in ["checkpoint_alignment_seconds", "checkpoint_stall_seconds", "commit_duration_seconds"] {
        assert!(get(&format!("{name}_count"), "") >= 1.0, "{name}");
    }
    assert!(get("checkpoint_stall_max_seconds", "") < 1.0);
    assert!(get("checkpoint_bytes_total", "") > 0.0);
    assert!(get("end_to_end_latency_seconds_count", "") >= 1.0);
    assert_eq!(get("committables_pending", ""), 0.0);
    assert_eq!(get("restarts_total", ""), 1.0);
    assert!(get("restore_seconds", "") > 0.0 && get("restore_seconds", "") < 10.0);
    assert!(get("uptime_seconds", "") < 60.0);
    for name in ["checkpoint_age_seconds", "checkpoint_bytes", "watermark_seconds"] {
        assert!(text.contains(&format!("staunch_{name}{{")), "{name}");
    }
}

#[test]
fn records_that_are_put_aside_until_the_barrier_are_metered() {
    const THERE: u64 = 1;
    const FREE: u64 = 2;
    let place = place().workers(2).only_the_last_checkpoint();
    let (topic, output, gate) = (Topic::<u64>::new(2), collect::<u64>(), Arc::new(AtomicU64::new(0)));
    let (source, sink, held) = (topic.clone(), output.clone(), Arc::clone(&gate));
    let running = place.start(move |job| {
        let held = Arc::clone(&held);
        // The record 0 holds its worker up, so that the barrier cannot pass.
        let hold = move |n: &u64| {
            if *n == 0 {
                held.store(THERE, SeqCst);
                while held.load(SeqCst) != FREE {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        job.source("numbers", source.clone()).inspect(hold).sink("output", sink.clone());
        Ok(())
    });
    topic.push(0, [0]);
    eventually("the first worker is held up", || gate.load(SeqCst) == THERE);
    running.controls.request(Request::Savepoint("held-up".into()));

    let aside = |labels: &str| running.metric("staunch_alignment_stash_records", labels);
    let taken = |labels: &str| running.metric("staunch_records_in_total", labels);
    let second = "step=\"output\",worker=\"1\"";
    // The other worker may read on in four steps: some until the barrier is on its way, and one more.
    let mut before = 0.0;
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(100));
        topic.push(1, [1]);
        eventually("the record has arrived", || taken(second) + aside(second) > before);
        if aside(second) > 0.0 {
            break;
        }
        before += 1.0;
    }
    topic.push(1, [1; 9]);
    eventually("ten records are put aside", || aside(second) == 10.0);
    assert_eq!((taken(second), aside("")), (before, 10.0));

    gate.store(FREE, SeqCst);
    eventually("all are taken in", || taken("step=\"output\"") == before + 11.0);
    assert_eq!(aside(""), 0.0);
    topic.end_all();
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(output.committed().len() as f64, before + 11.0);
    assert_eq!(running.metric("staunch_alignment_stash_max_records", second), 10.0);
    assert_eq!(running.metric("staunch_alignment_stash_max_records", ""), 10.0);
}

fn now_ms() -> i64 {
    Timestamp::from(SystemTime::now()).as_millis()
}

fn lag(running: &Running) -> f64 {
    running.metric("staunch_watermark_lag_seconds", "step=\"counts\"")
}

#[test]
fn the_watermarks_lag_grows_while_it_stands_still_is_there_after_a_restart_and_ends_with_the_input() {
    let (place, topic) = (place(), Topic::<i64>::new(1));
    let source = topic.clone();
    let build = move |job: &Job<'_>| {
        let timed = source.clone().event_time(|ms| Timestamp::from_millis(*ms), Duration::ZERO);
        let keyed = job.source("events", timed).key_by(|_| 0_u64);
        keyed.window(Tumbling::of(Duration::from_secs(60))).count("counts").sink("output", discard::sink());
        Ok(())
    };
    let running = place.start(build.clone());
    eventually("the input is read", || topic.polls(0) > 0);
    assert!(!running.metrics.render().unwrap().contains("staunch_watermark_lag_seconds{"));
    topic.push(0, [now_ms() - 3_600_000]);
    eventually("there is a watermark", || lag(&running) != 0.0);
    let at_first = lag(&running);
    assert!((3600.0..3660.0).contains(&at_first), "{at_first} s");
    std::thread::sleep(Duration::from_millis(50));
    assert!(lag(&running) > at_first + 0.04);
    assert_eq!(running.stop(), Outcome::Stopped);

    let running = place.start(build);
    eventually("the watermark is restored", || lag(&running) != 0.0);
    assert!(lag(&running) > at_first);
    topic.push(0, [now_ms() + 3_600_000]);
    eventually("the watermark is ahead", || lag(&running) < -3000.0);
    topic.end_all();
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    assert_eq!(lag(&running), 0.0);
}

/// How steps on the first worker spend the next second: idle, busy, backpressured.
fn shares<const N: usize>(running: &Running, steps: [&str; N]) -> [[f64; 3]; N] {
    std::thread::sleep(Duration::from_millis(1100));
    // A look ends the time before it.
    running.metrics.render().unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let text = running.metrics.render().unwrap();
    steps.map(|step| {
        let shares = ["idle", "busy", "backpressured"].map(|share| {
            let start = format!("staunch_{share}_ratio{{job=\"test\",step=\"{step}\",worker=\"0\"}} ");
            let found = text.lines().find_map(|line| line.strip_prefix(start.as_str()));
            found.unwrap_or_else(|| panic!("no {start}")).parse::<f64>().unwrap()
        });
        let sum: f64 = shares.iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{step}: {shares:?}");
        shares
    })
}

#[test]
fn behind_a_slow_sink_its_writer_is_busy_and_the_source_backpressured() {
    let mut place = place();
    place.config.inflight_bytes = 256 << 10;
    let sink = faulty(|now| match now {
        Moment::Write => Deed::Wait(Duration::from_millis(20)),
        _ => Deed::Go,
    });
    let output = sink.clone();
    let running = place.start(move |job| {
        job.source("numbers", generator::sequence(None, 1, |_, n| n)).sink("output", output.clone());
        Ok(())
    });
    let [source, writer] = shares(&running, ["numbers", "output"]);
    sink.behave();
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(source[2] > 0.7, "{source:?}");
    assert!(writer[1] > 0.7 && writer[2] == 0.0, "{writer:?}");
}

#[test]
fn behind_a_slow_step_the_source_is_backpressured_and_the_sink_idle() {
    let mut place = place();
    place.config.inflight_bytes = 256 << 10;
    let running = place.start(|job| {
        let numbers = job.source("numbers", generator::sequence(None, 1, |_, n| n)).key_by(|n| *n % 10);
        let slow = numbers.fold("slow", |count: &mut u64, n| {
            *count += 1;
            if n % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        slow.sink("output", discard::sink());
        Ok(())
    });
    let [source, step, writer] = shares(&running, ["numbers", "slow", "output"]);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(source[2] > 0.7, "{source:?}");
    assert!(step[1] > 0.7 && step[2] == 0.0, "{step:?}");
    assert!(writer[0] > 0.7, "{writer:?}");
}

#[test]
fn without_input_every_step_is_idle() {
    let (place, topic) = (place(), Topic::<u64>::new(1));
    let running = place.start(move |job| {
        job.source("numbers", topic.clone()).key_by(|n| *n).count("counts").sink("output", discard::sink());
        Ok(())
    });
    let shares = shares(&running, ["numbers", "counts", "output"]);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert!(shares.iter().all(|step| step[0] > 0.9 && step[2] == 0.0), "{shares:?}");
}

#[cfg(feature = "rocksdb")]
#[test]
fn state_that_does_not_fit_into_memory_is_counted_where_it_is() {
    const KEYS: u64 = 40_000;
    let mut place = place();
    place.config.state_bytes = 100_000;
    let running = place.start(|job| {
        // So slowly that there are some checkpoints: what is in none stays in memory.
        let numbers = generator::sequence(Some(KEYS), 1, |_, n| n).limit_rate(Some(50_000));
        job.source("numbers", numbers).key_by(|n| *n).count("counts").sink("output", discard::sink());
        Ok(())
    });
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    let (all, memory) = (KEYS as f64, running.metric("staunch_state_keys", "step=\"counts\""));
    let rocksdb = running.metric("staunch_rocksdb_keys", "step=\"counts\"");
    assert!(memory < all && rocksdb > 0.0, "{memory} in memory, {rocksdb} in RocksDB");
    assert!(memory + rocksdb >= all, "{memory} in memory, {rocksdb} in RocksDB");
}

#[cfg(feature = "rocksdb")]
#[test]
fn without_checkpoints_changed_state_moves_to_disk_too_and_the_last_checkpoint_has_all_of_it() {
    use staunch_checkpoint::FileKind;
    let input = Input { splits: 2, records: 24_000, keys: 3000 };
    let (mut place, output) = (place(), collect::<Total>());
    place.config.checkpoint_every = None;
    place.config.state_bytes = 20_000;
    let (sink, read) = (output.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&read);
    let build = move |job: &Job<'_>| {
        let read = Arc::clone(&counted);
        input.totals(job, sink.clone(), move |number| {
            if read.fetch_add(1, SeqCst) < 12_000 && number % 16 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(())
    };
    let running = place.start(build.clone());
    eventually("records of most keys", || read.load(SeqCst) > 6000);
    assert_eq!(running.stop(), Outcome::Stopped);
    let newest = place.manifests().pop().unwrap();
    let files = newest.states.values().flat_map(|state| &state.shards).flat_map(|shard| &shard.files);
    let spilled: u64 = files.filter(|file| file.kind == FileKind::Spill).map(|file| file.bytes).sum();
    assert!(spilled > 20_000, "{spilled} bytes of RocksDB in {newest:?}");
    place.finish(build);
    input.check_all(&output.committed());
}
