//! Collections as sources, the generator, and the reference sink in every crash window.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::MemoryStorage;
use common::life::{Row, Target};
use staunch_connectors::memory::{Collected, collect, collection};
use staunch_connectors::{discard, generator, stdout};
use staunch_core::sink::{Guarantee, Sink};
use staunch_core::source::{Progress, Records, Source, SplitReader};
use std::task::{Context, Waker};

impl Target for Collected<Row> {
    type Sink = Self;

    fn sink(&self) -> Self {
        self.clone()
    }

    fn visible(&self) -> Vec<Row> {
        self.committed()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        self.prepared_parts()
    }

    fn lose_prepared(&self, _: &MemoryStorage) {
        self.clear_prepared();
    }
}

windows!(collect::<Row>());

/// Reads a split of `source`, `batch` records at a time, from every position in turn.
async fn from_every_position<S>(source: &S, batch: usize) -> Vec<Vec<S::Record>>
where
    S: Source<Position = u64>,
    S::Record: Clone + PartialEq + std::fmt::Debug,
{
    let mut splits = Vec::new();
    for (_, split) in source.splits().await.unwrap() {
        let mut reader = source.open(split.clone(), None).await.unwrap();
        let all = common::poll(&mut reader, |_| false).unwrap().records;
        for at in 0..=all.len() {
            let mut reader = source.open(split.clone(), Some(at as u64)).await.unwrap();
            let (mut rest, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
            loop {
                let mut out = Records::with_limit(batch);
                let progress = reader.poll(&mut cx, &mut out).unwrap();
                assert!(out.records().len() <= batch && progress != Progress::Idle);
                rest.extend_from_slice(out.records());
                assert_eq!(reader.position() as usize, at + rest.len());
                if progress == Progress::End {
                    break;
                }
            }
            assert_eq!(rest, all[at..]);
        }
        splits.push(all);
    }
    splits
}

#[test]
fn a_collection_is_dealt_out_and_read_from_every_position() {
    common::run(async {
        let splits = from_every_position(&collection((0..10).collect::<Vec<u32>>()).splits(3), 2).await;
        assert_eq!(splits, [vec![0, 3, 6, 9], vec![1, 4, 7], vec![2, 5, 8]]);
        let empty = collection(Vec::<u8>::new()).splits(2);
        assert_eq!(from_every_position(&empty, 2).await, [Vec::<u8>::new(), vec![]]);
    });
}

#[test]
fn a_collection_with_other_splits_or_fewer_records_is_an_error() {
    common::run(async {
        let source = collection((0..10).collect::<Vec<u32>>()).splits(3);
        let (_, split) = Source::splits(&source).await.unwrap().remove(0);
        assert!(source.open(split.clone(), Some(5)).await.is_err());
        assert!(source.clone().splits(2).open(split, None).await.is_err());
    });
}

#[test]
fn a_generator_makes_the_same_records_from_every_position() {
    common::run(async {
        let source = generator::sequence(Some(9), 2, |split, index| u64::from(split) * 100 + index);
        let splits = from_every_position(&source, 4).await;
        assert_eq!(splits, [(0..9).collect::<Vec<_>>(), (100..109).collect()]);
        assert!(source.open(0, Some(10)).await.is_err());
        assert!(source.open(2, None).await.is_err());
        let endless = generator::sequence(None, 1, |_, index| index);
        let mut reader = endless.open(0, Some(u64::MAX - 1)).await.unwrap();
        assert_eq!(common::poll(&mut reader, |_| false).unwrap().records, [u64::MAX - 1]);
    });
}

#[test]
fn sinks_that_prepare_nothing_say_so_and_refuse_what_is_not_theirs() {
    common::run(async {
        assert_eq!(stdout::json::<Row>().guarantee(), Guarantee::AtLeastOnce);
        assert_eq!(discard::sink::<Row>().guarantee(), Guarantee::AtLeastOnce);
        let mut life = common::life::Life::new(collect::<Row>());
        let mut start = life.start(&[]).await.unwrap();
        start.write(common::life::rows(0..2)).await;
        let listed = start.prepare(1).await;
        let sink = discard::sink::<Row>();
        let mut committer = sink.committer(&life.context(2, 0)).await.unwrap();
        use staunch_core::sink::Committer;
        assert!(committer.recover(&[]).await.unwrap().is_empty());
        assert!(committer.commit(&[]).await.is_ok());
        assert!(committer.recover(&listed).await.is_err());
    });
}
