//! Payloads of output that is collected in memory.

use super::{Shown, all_common, altered, context, prepared, refusal, texts};
use crate::by_hand::run;
use crate::mutate::fuzz;
use serde_json::Value;
use staunch_connectors::memory::{Collected, collect};
use staunch_core::sink::{Committer, Sink};
use staunch_core::{Committable, InMemoryStorage};
use std::slice::from_ref;

#[test]
fn a_mutated_payload_of_a_collection_publishes_a_whole_part_or_nothing() {
    let epochs: [Vec<u64>; 2] = [vec![1, 2, 3], vec![4, 5]];
    let context = context(&InMemoryStorage::new(), 1);
    let start = || {
        let sink: Collected<u64> = collect();
        let listed = run(prepared(&sink, &context, &epochs));
        (sink, listed)
    };
    let good: Vec<Value> = start().1.iter().map(|one| one.payload.clone()).collect();
    let (mut taken, mut lost, mut foreign) = (0, 0, 0);
    fuzz("payloads of collections", &texts(&good), |dice, input| {
        let payload = altered(dice, input, &good);
        let _shown = Shown(&payload);
        let (sink, listed) = start();
        let one = Committable { payload: payload.clone(), ..listed[0].clone() };
        let committed = run(async { sink.committer(&context).await.unwrap().commit(from_ref(&one)).await });
        match committed {
            Ok(()) => {
                assert!(epochs.contains(&sink.committed()), "{:?}", sink.committed());
                taken += 1;
            }
            Err(error) => {
                assert!(sink.committed().is_empty() && sink.prepared_parts() == 2);
                match refusal(error).contains("another kind of sink") {
                    true => foreign += 1,
                    false => lost += 1,
                }
            }
        }
        let (sink, _) = start();
        let recovered = run(async { sink.committer(&context).await.unwrap().recover(from_ref(&one)).await });
        let removed = recovered.map_or(0, |removed| removed.len());
        assert_eq!(sink.prepared_parts() + removed, 2);
    });
    all_common(&[("taken", taken), ("lost", lost), ("no payload", foreign)]);
}
