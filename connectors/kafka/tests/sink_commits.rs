//! Commits into a real broker when connections break, answers are lost and come late, and the broker dies.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, Committer, Sink};
use staunch_kafka::Settings;
use staunch_kafka::sink::{Outgoing, Plain, Topic, sink};
use staunch_testing::conformance::sink::{Life, Target};
use staunch_testing::servers::{self, Own};
use std::io::Write;
use std::time::Duration;
use support::proxy::{ADD_PARTITIONS, END_TXN, Fate, INIT_PRODUCER_ID, PRODUCE, Proxy};
use support::{fresh, values};

/// A topic behind a proxy.
struct Out {
    topic: support::Topic,
    tokens: String,
    proxy: Proxy,
    timeout_ms: u32,
}

impl Out {
    fn new(broker: &str) -> Self {
        let (topic, tokens) = (support::Topic::new(broker, 1), fresh("tokens"));
        Self { topic, tokens, proxy: Proxy::start(broker), timeout_ms: 60_000 }
    }
}

impl Target for Out {
    type Record = Outgoing;
    type Sink = Topic<Plain>;

    fn sink(&self) -> Self::Sink {
        let settings = Settings::new(self.proxy.address())
            .option("transaction.timeout.ms", self.timeout_ms.to_string())
            .option("message.timeout.ms", self.timeout_ms.to_string());
        sink(settings, &self.topic.name).tokens(&self.tokens)
    }

    fn record(&self, n: u64) -> Outgoing {
        Outgoing { partition: Some(0), ..Outgoing::value(format!("{n:04}")) }
    }

    fn visible(&self) -> Vec<Outgoing> {
        let seen = values(&self.topic.settled(0)).into_iter();
        seen.map(|value| Outgoing { partition: Some(0), ..Outgoing::value(value) }).collect()
    }
}

/// How long a test here may take; on an idle machine the longest takes half a minute.
const LONGEST: Duration = Duration::from_secs(600);

/// Ends the program if the work does not end: what hangs in a library cannot be stopped otherwise.
fn run<R>(work: impl Future<Output = R>) -> R {
    let (_ended, end) = std::sync::mpsc::channel::<()>();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::spawn(move || {
        if end.recv_timeout(LONGEST) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            // Past the harness, which keeps what a test prints.
            let _ = writeln!(std::io::stderr(), "error: {test} did not end in {LONGEST:?}: FAILED");
            std::process::exit(101);
        }
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => {
            assert_eq!(error.kind(), Kind::Job, "{error}");
            error.to_string()
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// Commits as the engine does; how often it had to ask.
async fn commit<S: Sink>(
    start: &mut staunch_testing::conformance::sink::Start<S>,
    listed: &[staunch_core::Committable],
    what: &str,
) -> u32 {
    for attempt in 1..200 {
        match start.commit(listed).await {
            Ok(()) => return attempt,
            Err(CommitError::Retry(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(CommitError::Refused(error)) => panic!("{what}: {error}"),
        }
    }
    panic!("{what}: not committed")
}

#[test]
fn a_connection_that_is_cut_at_any_step_of_a_commit_loses_and_doubles_nothing() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut life = Life::new(Out::new(&broker));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        let (mut checkpoint, mut cuts, mut asked_again) = (0, 0, 0);
        let kinds = [ADD_PARTITIONS, PRODUCE, END_TXN, INIT_PRODUCER_ID].map(Some);
        for kind in kinds.into_iter().chain([None]) {
            // Several requests of a kind: that of the token's partition, and those that are sent again.
            for after in if kind.is_some() { 0..2 } else { 0..10 } {
                for fate in [Fate::Lost, Fate::AnswerLost] {
                    // A producer that had trouble is replaced: only then it begins anew.
                    let before =
                        (kind == Some(INIT_PRODUCER_ID)).then_some((Some(END_TXN), 0, Fate::AnswerLost));
                    for (kind, after, fate) in before.into_iter().chain([(kind, after, fate)]) {
                        checkpoint += 1;
                        let from = u64::from(checkpoint) * 4;
                        start.write(life.records(from..from + 4)).await.unwrap();
                        let listed = start.prepare(checkpoint).await.unwrap();
                        let struck = proxy.struck();
                        proxy.strike(kind, after, fate);
                        let what = format!("{fate:?} of request {kind:?} after {after}");
                        asked_again += u32::from(commit(&mut start, &listed, &what).await > 1);
                        proxy.heal();
                        cuts += proxy.struck() - struck;
                        assert!(after > 0 || proxy.struck() > struck, "{what} was never hit");
                        assert_eq!(life.visible(), life.records(4..from + 4), "{what}");
                    }
                }
            }
        }
        println!(
            "{checkpoint} commits, {cuts} requests struck at, {asked_again} asked for again by the engine"
        );
        assert!(cuts >= 20, "{cuts} cuts");
    });
}

/// Seen with this library: the end of one transaction that comes late ends the next one of the same producer epoch.
#[test]
fn the_end_of_a_transaction_that_comes_late_cannot_end_the_next_one() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut life = Life::new(Out::new(&broker));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        start.write(life.records(0..4)).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        proxy.strike(Some(END_TXN), 0, Fate::Late);
        commit(&mut start, &first, "the first").await;
        assert_eq!(proxy.struck(), 1);
        // The second transaction is open while the late one comes.
        start.write(life.records(4..8)).await.unwrap();
        let second = start.prepare(2).await.unwrap();
        proxy.strike(Some(END_TXN), 0, Fate::Lost);
        proxy.on_strike(|proxy| {
            for answer in proxy.deliver_late() {
                // Behind correlation id and throttle time: INVALID_PRODUCER_EPOCH, or PRODUCER_FENCED.
                let error = i16::from_be_bytes([answer[8], answer[9]]);
                assert!(error == 47 || error == 90, "the late end is answered with {error}");
            }
        });
        commit(&mut start, &second, "the second").await;
        assert_eq!(proxy.struck(), 2);
        assert_eq!(proxy.delivered(), 1);
        assert_eq!(life.visible(), life.records(0..8));
    });
}

#[test]
fn an_outage_longer_than_the_timeout_of_a_transaction_loses_nothing() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut target = Out::new(&broker);
        target.timeout_ms = 1_500;
        let mut life = Life::new(target);
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        start.write(life.records(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        // Its messages are written and its end is not, when the network goes.
        proxy.strike(Some(END_TXN), 0, Fate::Lost);
        proxy.on_strike(|proxy| proxy.down(true));
        let during = async { commit(&mut start, &listed, "after the outage").await };
        let outage = async {
            while proxy.struck() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The broker gives the transaction up by itself: then readers are past it.
            let topic = support::Topic::other(&broker, life.target.topic.name.clone());
            tokio::task::spawn_blocking(move || assert!(topic.settled(0).is_empty())).await.unwrap();
            proxy.down(false);
        };
        let (attempts, ()) = tokio::join!(during, outage);
        assert!(attempts > 1, "the first attempt cannot have worked");
        assert_eq!(life.visible(), life.records(0..4));
    });
}

#[test]
fn a_broker_that_is_killed_and_comes_back_has_every_message_once() {
    let Some(own) = Own::up("kafka") else { return };
    let broker = own.address("STAUNCH_KAFKA");
    let mut own = Some(own);
    run(async {
        let mut life = Life::new(Out::new(&broker));
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        for (checkpoint, step) in (1..).zip([None, Some(PRODUCE), Some(END_TXN)]) {
            let from = u64::from(checkpoint) * 4;
            start.write(life.records(from..from + 4)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            if let Some(step) = step {
                // It dies in the middle of a commit: it has got the request, and nobody its answer.
                proxy.strike(Some(step), 0, Fate::AnswerLost);
                let pid = own.as_ref().unwrap().pid();
                proxy.on_strike(move |_| {
                    // Or whoever starts it again does it.
                    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                });
            } else {
                own.as_ref().unwrap().kill();
            }
            let mut dead = own.take().unwrap();
            let back = async {
                while step.is_some() && proxy.struck() == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let restart = move || {
                    dead.kill();
                    dead.start();
                    dead
                };
                tokio::task::spawn_blocking(restart).await.unwrap()
            };
            let (attempts, alive) =
                tokio::join!(commit(&mut start, &listed, "while the broker is away"), back);
            println!("{step:?}: committed in {attempts} attempts");
            own = Some(alive);
            let mut all = life.visible();
            all.sort();
            assert_eq!(all, life.records(4..from + 4), "{step:?}");
        }
    });
}

/// A process that was stopped for long wakes up in the middle of its commit, and does not know that it is over.
#[test]
fn a_start_that_wakes_up_in_the_middle_of_its_commit_is_fenced() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut life = Life::new(Out::new(&broker));
        life.instances = 1;
        let mut first = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        first.write(life.records(0..4)).await.unwrap();
        let listed = first.prepare(1).await.unwrap();
        // All is written but the end, which comes when the next start is through.
        let (gate, open) = std::sync::mpsc::channel::<()>();
        let gate_of_proxy = std::sync::Mutex::new(open);
        proxy.strike(Some(END_TXN), 0, Fate::Passed);
        proxy.on_strike(move |_| gate_of_proxy.lock().unwrap().recv().unwrap());
        let stuck = listed.clone();
        let zombie = std::thread::spawn(move || {
            run(async move {
                let done = first.commit(&stuck).await;
                let again = first.commit(&stuck).await;
                (matches!(done, Ok(())), again)
            })
        });
        while proxy.struck() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut second = life.start(&listed).await.unwrap();
        second.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), life.records(0..4));
        gate.send(()).unwrap();
        let (done, again) = zombie.join().unwrap();
        assert!(!done, "the end of a fenced transaction is not answered with success");
        let why = refused(again);
        assert!(why.contains("was taken over by start 2"), "{why}");
        second.write(life.records(4..8)).await.unwrap();
        let next = second.prepare(2).await.unwrap();
        commit(&mut second, &next, "by the newer start").await;
        assert_eq!(life.visible(), life.records(0..8));
    });
}

#[test]
fn what_a_topic_refuses_after_the_decision_is_named_and_stays_staged() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut life = Life::new(Out::new(&broker));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let big = Outgoing { partition: Some(0), ..Outgoing::keyed("the-big-one", vec![b'x'; 5_000]) };
        start.write(vec![big.clone()]).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        // As somebody does it who does not know of the job.
        life.target.topic.configure("max.message.bytes", "1000");
        let why = refused(start.commit(&listed).await);
        assert!(why.contains("the-big-one") && why.contains("stays staged"), "{why}");
        assert!(life.target.topic.settled(0).is_empty());
        life.target.topic.configure("max.message.bytes", "10000");
        let mut second = life.start(&listed).await.unwrap();
        commit(&mut second, &listed, "after the correction").await;
        assert_eq!(values(&life.target.topic.settled(0)), ["x".repeat(5_000)]);
    });
}

#[test]
fn tokens_that_are_gone_or_older_than_the_checkpoint_are_refused() {
    let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
    run(async {
        let mut life = Life::new(Out::new(&broker));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(life.records(0..4)).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        commit(&mut start, &first, "the first").await;
        drop(start);
        let recover = async |tokens: &str, taken_over_by: Option<u64>| {
            let mut context = life.context(5, 0);
            context.taken_over_by = taken_over_by.map(staunch_core::Generation);
            let sink = life.target.sink().tokens(tokens);
            let mut committer = sink.committer(&context).await.unwrap();
            let checked = committer.check().await;
            let recovered = committer.recover(&first).await;
            (checked.err().map(|e| e.to_string()), recovered.err().map(|e| e.to_string()))
        };
        for (tokens, last, says) in [
            (fresh("tokens"), Some(1), "has no mark of this sink"),
            (life.target.tokens.clone(), Some(3), "no start after 1"),
        ] {
            let (checked, recovered) = recover(&tokens, last).await;
            assert!(checked.as_ref().is_some_and(|why| why.contains(says)), "{tokens}: {checked:?}");
            assert!(recovered.as_ref().is_some_and(|why| why.contains(says)), "{tokens}: {recovered:?}");
        }
        assert_eq!(recover(&life.target.tokens, Some(1)).await, (None, None));
    });
}
