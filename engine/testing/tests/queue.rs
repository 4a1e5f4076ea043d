//! A job over a queue that forgets what is acknowledged, in a real run.
#![allow(clippy::unwrap_used, clippy::panic)]

use staunch::core::{Metrics, Outcome, Request, run};
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch_testing::Queue;
use staunch_testing::conformance::{Can, source::Input};
use std::path::Path;
use std::time::Instant;

/// Twelve messages in each of two partitions.
struct Twelve(Queue<u64>);

impl Input for Twelve {
    type Record = u64;
    type Source = Queue<u64>;

    fn source(&self) -> Queue<u64> {
        self.0.clone()
    }

    fn expected(&self) -> Vec<(String, Vec<u64>)> {
        vec![("0".into(), (0..12).collect()), ("1".into(), (100..112).collect())]
    }

    fn end(&self) -> Can {
        self.0.end();
        Can::Done(())
    }

    fn grow(&self, split: &str) -> Can<Vec<u64>> {
        self.0.send(split.parse().unwrap(), [7, 8]);
        Can::Done(vec![7, 8])
    }

    fn acknowledged(&self, split: &str) -> Can<u64> {
        Can::Done(self.0.forgotten(split.parse().unwrap()))
    }
}

fn twelve() -> Twelve {
    let queue = Queue::new(2);
    queue.send(0, 0..12);
    queue.send(1, 100..112);
    Twelve(queue)
}

mod rules {
    staunch_testing::source_conformance!(super::twelve());
}

fn start(
    queue: &Queue<u64>,
    output: &Collected<u64>,
    checkpoints: &Path,
    workers: usize,
) -> (Controls, std::thread::JoinHandle<Result<Outcome>>) {
    let (source, sink, controls) = (queue.clone(), output.clone(), Controls::default());
    let build = move |job: &Job<'_>| {
        job.source("messages", source.clone()).sink("output", sink.clone());
        Ok(())
    };
    let every = Some(Duration::from_millis(20));
    let config = RunConfig { workers, checkpoint_every: every, ..RunConfig::new("queue", checkpoints) };
    let of_run = controls.clone();
    (controls, std::thread::spawn(move || run(build, config, of_run, Metrics::new("queue"))))
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_last_checkpoint_of_a_stop_and_of_an_end_is_acknowledged_before_the_run_ends() {
    let (place, queue, output) = (tempfile::tempdir().unwrap(), Queue::new(3), collect());
    let mut sent = Vec::new();
    for (life, workers) in [(0, 1), (1, 3), (2, 2)] {
        let (controls, running) = start(&queue, &output, place.path(), workers);
        for partition in 0..3 {
            let messages = (0..50).map(|n| life * 1000 + u64::from(partition) * 100 + n);
            sent.extend(messages.clone());
            queue.send(partition, messages);
        }
        if life < 2 {
            eventually("all is published", || output.committed().len() == sent.len());
            // These are read or not, but what is read is published and acknowledged.
            (0..3).for_each(|partition| queue.send(partition, [life * 1000 + 900 + u64::from(partition)]));
            sent.extend((0..3).map(|partition| life * 1000 + 900 + partition));
            controls.request(Request::Stop);
            assert_eq!(running.join().unwrap().unwrap(), Outcome::Stopped);
            assert_eq!(output.committed().len() + queue.left(), sent.len());
        } else {
            queue.end();
            assert_eq!(running.join().unwrap().unwrap(), Outcome::Finished);
        }
    }
    assert_eq!(queue.left(), 0);
    let mut published = output.committed();
    published.sort_unstable();
    sent.sort_unstable();
    assert_eq!(published, sent);
}

#[test]
fn messages_are_acknowledged_while_the_job_runs_once_their_output_is_published() {
    let (place, queue, output) = (tempfile::tempdir().unwrap(), Queue::new(1), collect());
    let (controls, running) = start(&queue, &output, place.path(), 1);
    for n in 0..5_u64 {
        queue.send(0, [n]);
        eventually("it is acknowledged", || queue.left() == 0);
        assert!(output.committed().contains(&n), "acknowledged before it is published");
    }
    controls.request(Request::Stop);
    assert_eq!(running.join().unwrap().unwrap(), Outcome::Stopped);
}
