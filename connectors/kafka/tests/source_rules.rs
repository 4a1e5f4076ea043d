//! The rules for sources, on a real broker: a topic that grows, and one that is read up to its end.
#![allow(clippy::unwrap_used)]

mod support;

use staunch_kafka::{Topics, topics};
use staunch_testing::conformance::source::{Input, check_all};
use staunch_testing::conformance::{Can, Outcome, Report};
use staunch_testing::servers;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use support::{Topic, fresh};

/// A topic of two partitions, and what is in them.
struct Lines {
    topic: Topic,
    group: String,
    bounded: bool,
    records: Mutex<BTreeMap<i32, Vec<String>>>,
}

impl Lines {
    fn new(broker: &str, bounded: bool) -> Self {
        let topic = Topic::new(broker, 2);
        let lines = Self { topic, group: fresh("g"), bounded, records: Mutex::default() };
        // The second partition is that of transactions: their marks are offsets without records.
        lines.append(0, 140);
        for _ in 0..3 {
            lines.topic.transact(1, &["aborted"], false);
            let more = lines.more(1, 4);
            lines.topic.transact(1, &more, true);
            lines.records.lock().unwrap().entry(1).or_default().extend(more);
        }
        lines.topic.transact(1, &["aborted", "too"], false);
        lines
    }

    fn more(&self, partition: i32, count: usize) -> Vec<String> {
        let known = self.records.lock().unwrap().get(&partition).map_or(0, Vec::len);
        (known..known + count).map(|index| format!("{partition}:{index}")).collect()
    }

    fn append(&self, partition: i32, count: usize) -> Vec<String> {
        let more = self.more(partition, count);
        self.topic.produce(partition, &more);
        self.records.lock().unwrap().entry(partition).or_default().extend(more.clone());
        more
    }

    fn id(&self, partition: i32) -> String {
        format!("{}/{partition}", self.topic.name)
    }
}

fn partition(split: &str) -> i32 {
    split.rsplit_once('/').unwrap().1.parse().unwrap()
}

impl Input for Lines {
    type Record = String;
    type Source = Topics<String>;

    fn source(&self) -> Topics<String> {
        let source = topics(&self.topic.broker, [&self.topic.name]).group(&self.group).text();
        if self.bounded { source.bounded() } else { source }
    }

    fn expected(&self) -> Vec<(String, Vec<String>)> {
        let records = self.records.lock().unwrap();
        records.iter().map(|(partition, records)| (self.id(*partition), records.clone())).collect()
    }

    fn end(&self) -> Can {
        if self.bounded { Can::Done(()) } else { Can::Not("a topic has no end, unless it is read up to one") }
    }

    fn grow(&self, split: &str) -> Can<Vec<String>> {
        if self.bounded {
            return Can::Not("it is read up to the end that it had");
        }
        Can::Done(self.append(partition(split), 3))
    }

    fn add_split(&self) -> Can<(String, Vec<String>)> {
        self.topic.grow_to(3);
        let records = self.append(2, 5);
        Can::Done((self.id(2), records))
    }

    fn lose_positions(&self, split: &str) -> Can {
        self.topic.delete_all(partition(split));
        Can::Done(())
    }

    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        if self.bounded {
            return Can::Not("it is read up to the end that it had");
        }
        self.topic.produce(0, &[b"\xff", b"\xfe"]);
        Can::Done(vec![(self.id(0), 2)])
    }

    fn acknowledged(&self, split: &str) -> Can<u64> {
        let offset = u64::try_from(self.topic.told(&self.group, partition(split)).unwrap_or(0)).unwrap();
        // One aborted and a mark, four committed and a mark, three times; two aborted and a mark; then nothing but records.
        Can::Done(match partition(split) {
            1 if offset <= 24 => {
                offset / 7 * 4 + (offset % 7).saturating_sub(2).min(4) * u64::from(offset < 21)
            }
            1 => offset - 12,
            _ => offset,
        })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

fn holds(report: &Report) {
    for (rule, outcome) in &report.outcomes {
        if let Outcome::Skipped(why) = outcome {
            println!("{}: {why}", rule.name);
        }
    }
    assert!(report.violations().is_empty(), "{report}");
}

#[test]
fn a_topic_keeps_the_rules_for_sources() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let report = check_all(move || Lines::new(&broker, false));
    holds(&report);
    assert!(report.skipped().len() <= 1, "{report}");
}

#[test]
fn a_topic_that_is_read_up_to_its_end_keeps_the_rules_for_sources() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let report = check_all(move || Lines::new(&broker, true));
    holds(&report);
    let ended = report.outcomes.iter().find(|(rule, _)| rule.name == "the_end_is_final").unwrap();
    assert!(matches!(ended.1, Outcome::Held), "{report}");
}
