//! What is particular to collections and the generator, and the reference sink in every crash window.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{here, run};
use staunch_connectors::memory::{collect, collection};
use staunch_connectors::{discard, generator, stdout};
use staunch_core::sink::{Guarantee, Sink};
use staunch_core::source::Source;
use staunch_testing::conformance::sink::{Life, Row, rows};

staunch_testing::sink_conformance!(collect::<Row>());

#[test]
fn a_collection_with_other_splits_or_fewer_records_is_an_error() {
    run(async {
        let source = collection((0..10).collect::<Vec<u32>>()).splits(3);
        let (_, split) = Source::splits(&source, &here()).await.unwrap().remove(0);
        assert!(source.open(split.clone(), Some(5), &here()).await.is_err());
        assert!(source.clone().splits(2).open(split, None, &here()).await.is_err());
    });
}

#[test]
fn a_generator_refuses_splits_and_records_that_it_does_not_make_and_may_be_endless() {
    run(async {
        let source = generator::sequence(Some(9), 2, |split, index| u64::from(split) * 100 + index);
        assert!(source.open(0, Some(10), &here()).await.is_err());
        assert!(source.open(2, None, &here()).await.is_err());
        let endless = generator::sequence(None, 1, |_, index| index);
        let mut reader = endless.open(0, Some(u64::MAX - 1), &here()).await.unwrap();
        assert_eq!(by_hand::poll(&mut reader, |_| false).unwrap().records, [u64::MAX - 1]);
    });
}

#[test]
fn sinks_that_prepare_nothing_say_so_and_refuse_what_is_not_theirs() {
    run(async {
        assert_eq!(stdout::json::<Row>().guarantee(), Guarantee::AtLeastOnce);
        assert_eq!(discard::sink::<Row>().guarantee(), Guarantee::AtLeastOnce);
        let mut life = Life::new(collect::<Row>());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..2)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let sink = discard::sink::<Row>();
        let mut committer = sink.committer(&life.context(2, 0)).await.unwrap();
        use staunch_core::sink::Committer;
        assert!(committer.recover(&[]).await.unwrap().is_empty());
        assert!(committer.commit(&[]).await.is_ok());
        assert!(committer.recover(&listed).await.is_err());
    });
}
