//! `word_count`: the smallest job, killed as well.

use crate::support::observer::Observer;
use crate::support::random::Random;
use crate::support::{Case, LONGEST, assert_same};
use jobs::batch;
use jobs::running::until;
use std::collections::BTreeMap;
use std::time::Duration;

const KILLS: u64 = 10;

/// A text of so many words, some far more frequent than others, with all sorts of letters and marks between.
fn text(words: u64) -> String {
    let mut random = Random::seeded(7);
    let mut text = String::new();
    for _ in 0..words {
        let limit = 1 + random.below(2000);
        match random.below(limit) {
            0 => text.push_str("Œuvre"),
            1 => text.push_str("ÜBER"),
            number => text.push_str(&format!("word{number}")),
        }
        text.push_str(random.pick(&[" ", " ", " ", ", ", "\n", ".\n", " – ", "\n\n"]));
    }
    text
}

/// Every count of every word, from 1 to the last one: what the job puts out, each exactly once.
fn every_count(text: &str) -> Vec<String> {
    let counts = batch::word_count(text);
    counts.iter().flat_map(|(word, last)| (1..=*last).map(move |count| format!("{word},{count}"))).collect()
}

fn last_counts(lines: &[String]) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for line in lines {
        let (word, count) = line.rsplit_once(',').unwrap();
        let count: u64 = count.parse().unwrap();
        let known = last.entry(word.to_owned()).or_insert(0);
        *known = count.max(*known);
    }
    last
}

#[test]
fn the_words_of_a_text_are_counted() {
    let text = text(20_000);
    let case = Case::words(&text);
    case.complete("--workers 3");
    assert_eq!(last_counts(&case.lines()), batch::word_count(&text));
    assert_same(&every_count(&text), &case.lines());
}

#[test]
fn killed_again_and_again_every_count_is_published_once() {
    let text = text(600_000);
    let mut random = Random::seeded(11);
    let (mut kills, mut runs) = (0, 0);
    // Where the machine is through the text before the last kill, the others come in another run.
    while kills < KILLS {
        assert!(runs < KILLS, "killed only {kills} times in {runs} runs");
        kills += kill_and_rerun(&text, &mut random, KILLS - kills);
        runs += 1;
    }
    println!("killed {kills} times in {runs} runs");
}

/// Kills the job at random moments, so many times at most or until it has ended, and lets it come to its end.
/// Returns the number of kills.
fn kill_and_rerun(text: &str, random: &mut Random, most: u64) -> u64 {
    let case = Case::words(text);
    let observer = Observer::of(&case.output(), str::to_owned);
    let mut kills = 0;
    while kills < most {
        let workers = 1 + random.below(3);
        let mut running = case.start(&format!("--workers {workers} --checkpoint-every 10ms"));
        if kills % 2 == 1 {
            // However long the start takes, this time it reads.
            let reads = || {
                let over = running.ended().unwrap().is_some();
                (over || running.logged("running").is_some()).then_some(())
            };
            assert!(until(LONGEST, reads).is_some(), "it does not read:\n{}", running.log().join("\n"));
        }
        std::thread::sleep(Duration::from_millis(random.below(50)));
        if let Some(status) = running.ended().unwrap() {
            assert!(status.success(), "{status}:\n{}", running.log().join("\n"));
            break;
        }
        running.kill().unwrap();
        kills += 1;
    }
    case.complete("--workers 2 --checkpoint-every 10ms");
    observer.finish();
    assert_same(&every_count(text), &case.lines());
    assert_eq!(last_counts(&case.lines()), batch::word_count(text));
    kills
}
