//! Every verb, on one, two and three workers.

use crate::harness::place;
use staunch::core::StateValue;
use staunch::memory::{Collected, collect, collection};
use staunch::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Runs a job with one output on 1, 2 and 3 workers; the output, sorted, must be this.
fn yields<T, B>(expected: &[T], build: B)
where
    T: Clone + Ord + Debug + Send + 'static,
    B: for<'s> Fn(&Job<'s>, Collected<T>) + Send + Sync + Clone + 'static,
{
    for workers in 1..=3 {
        let place = place().workers(workers);
        let output = collect();
        let (sink, build) = (output.clone(), build.clone());
        place.finish(move |job| {
            build(job, sink.clone());
            Ok(())
        });
        let mut found = output.committed();
        found.sort();
        assert_eq!(found, expected, "on {workers} workers");
        place.assert_tidy();
    }
}

fn numbers(until: u64) -> staunch::memory::Collection<u64> {
    collection((0..until).collect::<Vec<_>>()).splits(4)
}

#[test]
fn map_filter_and_flat_map_do_what_iterators_do() {
    let expected: Vec<u64> = (0..5000)
        .map(|n| n * 3)
        .filter(|n| n % 2 == 0)
        .flat_map(|n| (0..n % 4).map(move |i| n * 10 + i))
        .collect();
    yields(&expected, |job, sink| {
        job.source("numbers", numbers(5000))
            .map(|n| n * 3)
            .filter(|n| n % 2 == 0)
            .flat_map(|n| (0..n % 4).map(move |i| n * 10 + i))
            .sink("output", sink);
    });
}

#[test]
fn one_record_may_become_very_many() {
    let expected: Vec<u64> = (0..100_000).collect();
    yields(&expected, |job, sink| {
        job.source("one", collection([0])).flat_map(|_: u64| 0..100_000).sink("output", sink);
    });
}

#[test]
fn inspect_sees_each_record_and_changes_none() {
    let seen = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&seen);
    yields(&(0..3000).collect::<Vec<u64>>(), move |job, sink| {
        let sum = Arc::clone(&sum);
        job.source("numbers", numbers(3000))
            .inspect(move |n| {
                sum.fetch_add(*n, SeqCst);
            })
            .sink("output", sink);
    });
    assert_eq!(seen.load(SeqCst), 3 * (0..3000).sum::<u64>());
}

#[test]
fn a_cloned_stream_goes_both_ways_and_a_union_has_all() {
    let mut expected: Vec<u64> = (0..2000).chain((0..2000).map(|n| n + 10_000)).chain(0..7).collect();
    expected.sort();
    yields(&expected, |job, sink| {
        let one = job.source("numbers", numbers(2000));
        let other = one.clone().map(|n| n + 10_000);
        one.union(other).union(job.source("few", numbers(7))).sink("output", sink);
    });
}

#[test]
fn a_stream_may_be_united_with_itself() {
    let expected: Vec<u64> = (0..500).flat_map(|n| [n, n]).collect();
    yields(&expected, |job, sink| {
        let one = job.source("numbers", numbers(500));
        one.clone().union(one).sink("output", sink);
    });
}

/// What a running aggregate must put out: for each key, its value after each record.
fn running<A: StateValue + Clone + Default + Ord>(until: u64, add: impl Fn(&mut A, u64)) -> Vec<(u64, A)> {
    let mut state: BTreeMap<u64, A> = BTreeMap::new();
    let mut out: Vec<(u64, A)> = (0..until)
        .map(|n| {
            let value = state.entry(n % 7).or_default();
            add(value, n);
            (n % 7, value.clone())
        })
        .collect();
    out.sort();
    out
}

#[test]
fn count_counts_by_key() {
    yields(&running(4000, |count: &mut u64, _| *count += 1), |job, sink| {
        job.source("numbers", numbers(4000)).key_by(|n| n % 7).count("counts").sink("output", sink);
    });
}

#[test]
fn fold_folds_in_the_order_of_a_split() {
    // One split: with more there is no order between records of different ones.
    let append = |text: &mut String, n: u64| text.push_str(&format!("{n},"));
    yields(&running(300, append), move |job, sink| {
        let ordered = collection((0..300).collect::<Vec<u64>>());
        job.source("numbers", ordered).key_by(|n| n % 7).fold("texts", append).sink("output", sink);
    });
}

#[test]
fn reduce_combines_two_by_two() {
    let max = |most: &mut u64, n: u64| *most = n.max(*most);
    yields(&running(700, max), |job, sink| {
        let ordered = collection((0..700).collect::<Vec<u64>>());
        job.source("numbers", ordered).key_by(|n| n % 7).reduce("most", u64::max).sink("output", sink);
    });
}

/// The mean, in thousandths.
#[derive(Clone)]
struct Mean;

impl Aggregate for Mean {
    type Input = u64;
    type Accumulator = (u64, u64);
    type Output = u64;

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, (count, sum): &mut (u64, u64), n: u64) {
        *count += 1;
        *sum += n;
    }

    fn result(&self, (count, sum): &(u64, u64)) -> u64 {
        sum * 1000 / count
    }
}

#[test]
fn an_aggregate_keeps_one_thing_and_puts_out_another() {
    let mut state: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut expected: Vec<(u64, u64)> = (0..700)
        .map(|n| {
            let mean = state.entry(n % 7).or_default();
            Mean.add(mean, n);
            (n % 7, Mean.result(mean))
        })
        .collect();
    expected.sort();
    yields(&expected, |job, sink| {
        let ordered = collection((0..700).collect::<Vec<u64>>());
        job.source("numbers", ordered).key_by(|n| n % 7).aggregate("means", Mean).sink("output", sink);
    });
}

#[test]
fn stateful_steps_follow_one_another_with_other_keys() {
    // How many keys of the first count have reached each number.
    let mut expected: Vec<(u64, u64)> = (1..=100).flat_map(|n| (1..=7).map(move |k| (n, k))).collect();
    expected.sort();
    yields(&expected, |job, sink| {
        job.source("numbers", numbers(700))
            .key_by(|n| n % 7)
            .count("counts")
            .key_by(|(_, count)| *count)
            .count("reached")
            .sink("output", sink);
    });
}

#[test]
fn keys_of_text_and_of_structs_are_kept_apart() {
    let text = |n: u64| if n.is_multiple_of(3) { String::new() } else { format!("{}", n % 11) };
    let mut state: BTreeMap<(String, bool), u64> = BTreeMap::new();
    let mut expected: Vec<_> = (0..2000)
        .map(|n| {
            let count = state.entry((text(n), n % 2 == 0)).or_default();
            *count += 1;
            ((text(n), n % 2 == 0), *count)
        })
        .collect();
    expected.sort();
    yields(&expected, move |job, sink| {
        job.source("numbers", numbers(2000))
            .key_by(move |n| (text(*n), n % 2 == 0))
            .count("counts")
            .sink("output", sink);
    });
}

#[test]
fn no_records_at_all_is_fine() {
    yields(&Vec::<(u64, u64)>::new(), |job, sink| {
        job.source("numbers", numbers(0)).key_by(|n| n % 7).count("counts").sink("output", sink);
    });
}

#[test]
fn several_sources_and_sinks_that_have_nothing_to_do_with_one_another_share_a_job() {
    for workers in 1..=3 {
        let place = place().workers(workers);
        let (evens, all) = (collect(), collect());
        let (one, other) = (evens.clone(), all.clone());
        place.finish(move |job| {
            job.source("a", numbers(1000)).filter(|n| n % 2 == 0).sink("evens", one.clone());
            job.source("b", numbers(10)).sink("all", other.clone());
            Ok(())
        });
        assert_eq!(evens.committed().len(), 500);
        assert_eq!(all.committed().len(), 10);
    }
}
