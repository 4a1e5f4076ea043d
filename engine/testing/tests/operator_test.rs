//! `OperatorTest` itself, and with it the operators of the engine in every mode.

use staunch::prelude::*;
use staunch_testing::OperatorTest;

#[test]
fn counts_folds_and_reductions_are_the_same_however_records_come() {
    OperatorTest::new(|numbers: Stream<u64>| numbers.key_by(|n| n % 3).count("counts"))
        .input(0..7)
        .expect([(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2), (0, 3)])
        .unwrap();
    OperatorTest::new(|numbers: Stream<u64>| {
        numbers.key_by(|n| n % 2).fold("sums", |sum: &mut u64, n: u64| *sum += n)
    })
    .input(1..=4)
    .expect([(1, 1), (0, 2), (1, 4), (0, 6)])
    .unwrap();
    OperatorTest::new(|numbers: Stream<u64>| {
        numbers.key_by(|_| 0_u64).reduce("max", |a: u64, b: u64| a.max(b))
    })
    .input([3, 1, 5, 4])
    .expect([(0, 3), (0, 3), (0, 5), (0, 5)])
    .unwrap();
}

#[test]
fn windows_fire_once_with_everything_in_them_however_records_come() {
    let input: Vec<u64> = (0..30).map(|n| n ^ 1).collect();
    OperatorTest::new(|numbers: Stream<u64>| {
        numbers
            .key_by(|n| n % 2)
            .window(Tumbling::of(Duration::from_millis(10)))
            .fold("sums", |sum: &mut u64, n: u64| *sum += n)
            .map(|result| (result.key, result.window.start.as_millis(), result.value))
    })
    .event_time(|n| Timestamp::from_millis(*n as i64), Duration::from_millis(2))
    .input(input)
    .expect([(0, 0, 20), (1, 0, 25), (0, 10, 70), (1, 10, 75), (0, 20, 120), (1, 20, 125)])
    .unwrap();
}

#[test]
fn steps_in_a_row_are_tested_together() {
    OperatorTest::new(|words: Stream<String>| {
        words
            .key_by(|word| word.clone())
            .count("words")
            .key_by(|(_, n): &(String, u64)| *n)
            .count("numbers-of-counts")
    })
    .input(["a", "b", "a", "c"].map(String::from))
    .expect([(1, 1), (1, 2), (1, 3), (2, 1)])
    .unwrap();
}

#[test]
fn a_sink_inside_of_an_operator_is_kept_if_the_test_says_so() {
    let test = || {
        OperatorTest::new(|numbers: Stream<u64>| {
            numbers.clone().sink("copy", staunch::discard::sink());
            numbers.map(|n| n + 1)
        })
        .input([1, 2])
    };
    test().real_sink("copy").expect([2, 3]).unwrap();
    let why = test().expect([2, 3]).unwrap_err();
    assert!(why.contains("sink `copy` would write for real"), "{why}");
}

#[test]
fn a_wrong_expectation_is_reported_with_its_mode_and_difference() {
    let wrong = OperatorTest::new(|numbers: Stream<u64>| numbers.map(|n| n + 1)).input([1]).expect([3]);
    let why = wrong.unwrap_err();
    assert!(why.contains("InBulk") && why.contains("missing [3], unexpected [2]"), "{why}");
}

#[test]
fn an_operator_that_keeps_state_beside_its_state_is_found_out() {
    use std::cell::Cell;
    let found = OperatorTest::new(|numbers: Stream<u64>| {
        let before = Cell::new(0);
        numbers.map(move |n| before.replace(n))
    })
    .input([1, 2, 3])
    .expect([0, 1, 2]);
    let why = found.unwrap_err();
    assert!(why.contains("RestoreAfterEach"), "{why}");
}
