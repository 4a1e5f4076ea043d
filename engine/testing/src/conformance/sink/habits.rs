//! Rules of sinks that belong to no single crash window. Their sentences are in the list of rules.

use super::{Life, Target};
use crate::conformance::{Stop, Verdict, must};
use staunch::core::sink::{Committer, Guarantee, Sink};

/// The engine checks all sinks before it takes the job over, so that a start that is refused leaves the
/// running one alone.
pub async fn a_check_leaves_no_trace(life: &mut Life<impl Target>) -> Verdict {
    let mut running = life.begin(&[]).await?;
    let listed = running.epoch(1, life.records(0..10)).await?;
    let sink = life.target.sink();
    let committer = sink.committer(&life.context(life.starts + 1, 0)).await;
    let mut committer = committer.map_err(|e| Stop::failed("opening a committer", &e))?;
    committer.check().await.map_err(|e| Stop::failed("Committer::check", &e))?;
    life.shows("after the check", 0..0)?;
    life.holds_prepared("after the check")?;
    drop(committer);
    running.publish("by the running start", &listed).await?;
    life.shows("after the commit", 0..10)
}

pub async fn a_start_with_other_instances_goes_on(life: &mut Life<impl Target>) -> Verdict {
    let mut listed = Vec::new();
    for (checkpoint, instances) in (1..).zip([3, 1, 4, 2]) {
        life.instances = instances;
        let mut start = life.begin(&listed).await?;
        start.publish("of what other instances prepared", &listed).await?;
        let from = 12 * u64::from(checkpoint - 1);
        life.shows("after the start", 0..from)?;
        listed = start.epoch(checkpoint, life.records(from..from + 12)).await?;
    }
    let mut last = life.begin(&listed).await?;
    last.publish("of the last checkpoint", &listed).await?;
    life.shows("in the end", 0..48)
}

pub async fn an_empty_epoch_prepares_nothing(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    for checkpoint in [1, 2] {
        let listed = start.epoch(checkpoint, Vec::new()).await?;
        must(listed.is_empty(), "no committable of an epoch without records", format_args!("{listed:?}"))?;
    }
    life.is_tidy("after empty epochs")?;
    start.publish("of nothing", &[]).await?;
    let listed = start.epoch(3, life.records(0..4)).await?;
    let empty = start.epoch(4, Vec::new()).await?;
    must(empty.is_empty(), "no committable of an epoch without records", format_args!("{empty:?}"))?;
    start.publish("of the epoch before", &listed).await?;
    life.shows("after the commit", 0..4)
}

pub async fn another_lineage_is_refused(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    first.publish("of checkpoint 1", &listed).await?;
    drop(first);
    life.lineage = "life-2".into();
    // The other life of the job may have had more starts, or fewer.
    for starts in [0, 9] {
        life.starts = starts;
        let expected = "another life of the job is refused by this target";
        must(life.start(&[]).await.is_err(), expected, "it has recovered")?;
        life.shows("after the refusal", 0..10)?;
    }
    Ok(())
}

pub async fn dropping_publishes_and_removes_nothing(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    let before = life.leftovers();
    drop(first);
    life.shows("after writers and committer were dropped", 0..0)?;
    let after = life.leftovers();
    must(after == before, format!("{before} pieces of prepared output as before dropping"), after)?;
    let mut second = life.begin(&listed).await?;
    second.publish("after a crash", &listed).await?;
    life.shows("after the commit", 0..10)
}

pub async fn it_promises_exactly_once(life: &mut Life<impl Target>) -> Verdict {
    let promise = life.target.sink().guarantee();
    must(promise == Guarantee::ExactlyOnce, "Guarantee::ExactlyOnce", format_args!("{promise:?}"))
}

/// "Ok" would lose records in silence; "Retry" would ask for ever for what cannot come.
pub async fn lost_output_is_refused_loudly(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let listed = start.epoch(3, life.records(0..10)).await?;
    must(!listed.is_empty(), "committables of ten records", "none")?;
    life.holds_prepared("after prepare")?;
    life.target.lose_prepared(&life.storage).or_skip()?;
    life.is_tidy("after `Target::lose_prepared`")?;
    let said = start.is_refused("of lost output", &listed).await?;
    let records = listed[0].records.to_string();
    let words: Vec<&str> = said.split(|c: char| !c.is_alphanumeric()).collect();
    let named = ["out", "3", &records].iter().all(|word| words.contains(word));
    let expected = format!("an error that names sink `out`, checkpoint 3 and {records} records");
    must(named, expected, said)?;
    life.shows("after the refusal", 0..0)
}

pub async fn prepared_output_says_how_many_records_it_holds(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let mut from = 0;
    for (checkpoint, records) in [(1, 10), (2, 3), (3, 7)] {
        let listed = start.epoch(checkpoint, life.records(from..from + records)).await?;
        let said: u64 = listed.iter().map(|c| c.records).sum();
        must(said == records, format!("committables of {records} records for epoch {checkpoint}"), said)?;
        from += records;
    }
    Ok(())
}
