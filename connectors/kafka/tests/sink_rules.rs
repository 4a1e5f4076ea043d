//! The rules for exactly-once sinks, on a real broker, as a reader with read_committed sees it.
#![allow(clippy::unwrap_used)]

mod support;

use staunch_kafka::sink::{Outgoing, Plain, Topic, sink};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Target, check_all};
use staunch_testing::servers;
use staunch_testing::storage::MemoryStorage;
use std::time::Duration;
use support::fresh;
use support::proxy::{END_TXN, Fate, Proxy};

struct Out {
    topic: support::Topic,
    tokens: String,
    proxy: Proxy,
}

impl Target for Out {
    type Record = Outgoing;
    type Sink = Topic<Plain>;

    fn sink(&self) -> Self::Sink {
        sink(self.proxy.address(), &self.topic.name).tokens(&self.tokens)
    }

    fn record(&self, n: u64) -> Outgoing {
        Outgoing { partition: Some(0), ..Outgoing::value(n.to_string()) }
    }

    fn visible(&self) -> Vec<Outgoing> {
        let seen = support::values(&self.topic.settled(0)).into_iter();
        seen.map(|value| Outgoing { partition: Some(0), ..Outgoing::value(value) }).collect()
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        self.proxy.strike(Some(END_TXN), 0, Fate::AnswerLost);
        Can::Done(())
    }

    fn patience(&self) -> Duration {
        support::PATIENCE * 3
    }
}

#[test]
fn a_topic_keeps_the_rules_for_exactly_once_sinks() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    let report = check_all(move || Out {
        topic: support::Topic::new(&broker, 1),
        tokens: fresh("tokens"),
        proxy: Proxy::start(&broker),
    });
    for (rule, why) in report.skipped() {
        println!("{}: {why}", rule.name);
    }
    assert!(report.violations().is_empty(), "{report}");
    assert!(report.skipped().is_empty(), "{report}");
}
