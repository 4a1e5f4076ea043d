//! The outside may never answer: a stop is heard all the same, and a process that has failed ends.

use crate::harness::{eventually, place};
use crate::topic::Topic;
use staunch::core::background::blocking;
use staunch::core::context::SourceContext;
use staunch::core::source::Source;
use staunch::memory::collect;
use staunch::prelude::*;
use std::sync::{Arc, Condvar, Mutex};

/// A door that whoever comes to it waits before, until it is opened for good.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Door {
    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        while !state.0 {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().1
    }

    fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
}

/// A topic on a server that hangs.
struct Stuck {
    topic: Topic<u64>,
    listing: Option<Door>,
    opening: Option<Door>,
}

impl Source for Stuck {
    type Record = u64;
    type Split = <Topic<u64> as Source>::Split;
    type Position = <Topic<u64> as Source>::Position;
    type Reader = <Topic<u64> as Source>::Reader;

    async fn splits(&self, context: &SourceContext) -> Result<Vec<(String, Self::Split)>> {
        if let Some(door) = self.listing.clone() {
            blocking(move || door.pass()).await?;
        }
        self.topic.splits(context).await
    }

    async fn open(
        &self,
        split: Self::Split,
        at: Option<Self::Position>,
        context: &SourceContext,
    ) -> Result<Self::Reader> {
        if let Some(door) = self.opening.clone() {
            blocking(move || door.pass()).await?;
        }
        self.topic.open(split, at, context).await
    }
}

#[test]
fn a_stop_is_heard_while_a_start_waits_for_a_listing_that_never_ends() {
    let (place, topic, output, door) = (place(), Topic::new(1), collect(), Door::default());
    topic.push(0, [1, 2, 3]);
    let (source, sink, at) = (topic.clone(), output.clone(), door.clone());
    let running = place.start(move |job| {
        let stuck = Stuck { topic: source.clone(), listing: Some(at.clone()), opening: None };
        job.source("numbers", stuck).sink("output", sink.clone());
        Ok(())
    });
    eventually("it lists", || door.waiting() > 0);
    let answer = running.controls.stop();
    assert_eq!(running.wait().unwrap(), Outcome::Stopped);
    let why = answer.wait(Duration::from_secs(20)).unwrap_err().to_string();
    assert!(why.contains("the start was given up"), "{why}");
    // The start holds the lock until it comes back, and then begins nothing more.
    let (source, sink) = (topic.clone(), output.clone());
    let copy = move |job: &Job<'_>| {
        job.source("numbers", source.clone()).sink("output", sink.clone());
        Ok(())
    };
    assert!(place.fail(copy.clone()).to_string().contains("already running"));
    door.open();
    topic.end_all();
    eventually("the lock is given back", || place.run(copy.clone()).is_ok());
    assert_eq!(output.committed(), [1, 2, 3]);
}

#[test]
fn a_stop_is_heard_while_a_split_is_being_opened_for_ever() {
    let (place, topic, output, door) = (place(), Topic::new(2), collect(), Door::default());
    topic.push(0, [1, 2, 3]);
    topic.push(1, [4]);
    let (source, sink, at) = (topic.clone(), output.clone(), door.clone());
    let running = place.start(move |job| {
        let stuck = Stuck { topic: source.clone(), listing: None, opening: Some(at.clone()) };
        job.source("numbers", stuck).sink("output", sink.clone());
        Ok(())
    });
    eventually("it opens", || door.waiting() > 0);
    assert_eq!(running.stop(), Outcome::Stopped);
    door.open();
    topic.end_all();
    let sink = output.clone();
    let copy = move |job: &Job<'_>| {
        job.source("numbers", topic.clone()).sink("output", sink.clone());
        Ok(())
    };
    eventually("the lock is given back", || place.run(copy.clone()).is_ok());
    let mut committed = output.committed();
    committed.sort_unstable();
    assert_eq!(committed, [1, 2, 3, 4]);
}
