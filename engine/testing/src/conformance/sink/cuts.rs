//! Rules of cuts that are open while the next epoch is written. Their sentences are in the list of rules.

use super::{Life, Target};
use crate::conformance::{Verdict, must};

pub async fn a_crash_while_a_cut_is_open_shows_nothing(life: &mut Life<impl Target>) -> Verdict {
    for is_begun in [false, true] {
        let mut first = life.begin(&[]).await?;
        first.put(life.records(0..10)).await?;
        let mut cut = first.begin_cut(1)?;
        if is_begun {
            cut.begin().await;
        }
        first.put(life.records(10..20)).await?;
        drop(cut);
        drop(first);
        drop(life.begin(&[]).await?);
        life.shows("after a crash with an open cut", 0..0)?;
    }
    // What was begun could still be on its way when its process was gone. This start finds it.
    let mut last = life.begin(&[]).await?;
    life.is_tidy("after the next starts")?;
    let listed = last.epoch(1, life.records(0..20)).await?;
    last.publish("of what was read again", &listed).await?;
    life.shows("after the commit", 0..20)
}

pub async fn records_after_a_cut_belong_to_the_next_epoch(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    start.put(life.records(0..10)).await?;
    for checkpoint in 1..5 {
        let cut = start.begin_cut(checkpoint)?;
        let (upto, next) = (u64::from(checkpoint) * 10, u64::from(checkpoint + 1) * 10);
        start.put(life.records(upto..next)).await?;
        let listed = cut.answered().await?;
        let said: u64 = listed.iter().map(|c| c.records).sum();
        must(said == 10, format!("committables of the 10 records before cut {checkpoint}"), said)?;
        start.publish("of the epoch that was cut", &listed).await?;
        life.shows("while later records are written and not cut", 0..upto)?;
    }
    Ok(())
}

pub async fn records_after_a_cut_are_gone_with_a_crash(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    first.put(life.records(0..10)).await?;
    let cut = first.begin_cut(1)?;
    first.put(life.records(10..20)).await?;
    let listed = cut.answered().await?;
    drop(first);
    let mut second = life.begin(&listed).await?;
    second.publish("of the cut that was answered", &listed).await?;
    life.shows("after the commit", 0..10)?;
    life.is_tidy("after the commit")?;
    let next = second.epoch(2, life.records(10..20)).await?;
    second.publish("of what was read again", &next).await?;
    life.shows("after the next commit", 0..20)
}

pub async fn two_cuts_may_be_open(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    start.put(life.records(0..10)).await?;
    let first = start.begin_cut(1)?;
    start.put(life.records(10..16)).await?;
    let second = start.begin_cut(2)?;
    start.put(life.records(16..20)).await?;
    // The engine lets both go on at once, and either may be done first.
    let (second, first) = (second.answered().await?, first.answered().await?);
    start.publish("of the first cut", &first).await?;
    life.shows("after the first commit", 0..10)?;
    start.publish("of the second cut", &second).await?;
    life.shows("after the second commit", 0..16)
}
