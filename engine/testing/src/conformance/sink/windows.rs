//! The crash windows `a` to `i` of a checkpoint, for any exactly-once sink. Their sentences are in the list
//! of rules.

use super::{Life, Target};
use crate::conformance::{Verdict, must};

pub async fn a_crash_before_prepare_shows_nothing(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    first.put(life.records(0..100)).await?;
    life.shows("after records were written", 0..0)?;
    drop(first);
    let mut second = life.begin(&[]).await?;
    life.shows("after the restart", 0..0)?;
    life.is_tidy("after the restart")?;
    let listed = second.epoch(1, life.records(0..100)).await?;
    second.publish("of what was read again", &listed).await?;
    life.shows("after the commit", 0..100)?;
    life.is_tidy("after the commit")
}

pub async fn b_an_unlisted_prepared_part_is_removed(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    first.epoch(1, life.records(0..10)).await?;
    life.shows("after prepare", 0..0)?;
    life.holds_prepared("after prepare")?;
    drop(first);
    let mut second = life.begin(&[]).await?;
    life.is_tidy("after a recovery that lists nothing")?;
    let said = &second.removed;
    must(!said.is_empty(), "the recovery says what it removed", format_args!("{said:?}"))?;
    let listed = second.epoch(1, life.records(0..10)).await?;
    second.publish("of what was read again", &listed).await?;
    life.shows("after the commit", 0..10)
}

/// A process that was slow to die prepares under the same id, after the next one has cleaned up. Names made
/// of checkpoint and instance alone would take its output for the other's.
pub async fn b_an_undecided_id_is_used_again(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    first.put(life.records(0..10)).await?;
    let mut second = life.begin(&[]).await?;
    // It may be refused already; if it is not, nobody lists what it prepared.
    let late = first.prepare(1).await;
    let listed = second.epoch(1, life.records(0..6)).await?;
    second.publish("of the second output under the same id", &listed).await?;
    life.shows("after the commit", 0..6)?;
    drop((first, late));
    let mut third = life.begin(&listed).await?;
    life.is_tidy("after the next recovery")?;
    third.publish("of the same checkpoint", &listed).await?;
    let next = third.epoch(2, life.records(6..12)).await?;
    third.publish("of the next checkpoint", &next).await?;
    life.shows("after the next commit", 0..12)
}

pub async fn b_an_aborted_checkpoint_is_covered_by_the_next(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let mut listed = first.epoch(1, life.records(0..10)).await?;
    // Checkpoint 1 is given up; what was prepared for it is listed by checkpoint 2.
    listed.extend(first.epoch(2, life.records(10..20)).await?);
    drop(first);
    let mut second = life.begin(&listed).await?;
    second.publish("of both checkpoints", &listed).await?;
    life.shows("after the commit", 0..20)
}

pub async fn c_recovery_keeps_what_is_listed_and_publishes_nothing(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    for _ in 0..2 {
        let again = life.begin(&listed).await?;
        let said = &again.removed;
        must(said.is_empty(), "a recovery removes nothing that is listed", format_args!("{said:?}"))?;
        life.shows("after the recovery", 0..0)?;
        life.holds_prepared("after the recovery")?;
    }
    drop(first);
    let mut last = life.begin(&listed).await?;
    last.publish("after three recoveries", &listed).await?;
    life.shows("after the commit", 0..10)
}

pub async fn d_a_decided_part_is_committed_after_a_crash(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    // The next epoch is lost in the crash; its output must not stay, and not be published.
    first.epoch(2, life.records(10..20)).await?;
    drop(first);
    let mut second = life.begin(&listed).await?;
    let said = &second.removed;
    must(!said.is_empty(), "the recovery removes the epoch that was not decided", format_args!("{said:?}"))?;
    second.publish("of the decided checkpoint", &listed).await?;
    life.shows("after the commit", 0..10)?;
    life.is_tidy("after the commit")
}

pub async fn d_a_commit_publishes_only_what_it_is_given(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let first = start.epoch(1, life.records(0..10)).await?;
    let second = start.epoch(2, life.records(10..20)).await?;
    start.publish("of checkpoint 1", &first).await?;
    life.shows("while checkpoint 2 is prepared and not decided", 0..10)?;
    start.publish("of checkpoint 2", &second).await?;
    life.shows("after both commits", 0..20)
}

pub async fn e_a_half_done_commit_is_completed(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    must(listed.len() >= 2, "two instances with records prepare a piece each", listed.len())?;
    first.publish("of one piece", &listed[..1]).await?;
    let (seen, records) = (life.target.visible().len() as u64, listed[0].records);
    must(seen == records, format!("a reader sees the {records} records of that piece"), seen)?;
    drop(first);
    let mut second = life.begin(&listed).await?;
    second.publish("of all pieces", &listed).await?;
    life.shows("after the commit", 0..10)
}

pub async fn e_a_lost_answer_is_asked_for_again(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let listed = start.epoch(1, life.records(0..10)).await?;
    life.target.lose_next_answer(&life.storage).or_skip()?;
    start.publish("whose answer is lost", &listed).await?;
    life.shows("after the commit", 0..10)?;
    drop(start);
    let mut second = life.begin(&listed).await?;
    second.publish("after a crash", &listed).await?;
    life.shows("after the repeated commit", 0..10)
}

pub async fn f_a_commit_repeated_after_a_crash_is_a_success(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let listed = first.epoch(1, life.records(0..10)).await?;
    first.publish("of checkpoint 1", &listed).await?;
    first.publish("of checkpoint 1 again", &listed).await?;
    drop(first);
    let mut second = life.begin(&listed).await?;
    second.publish("of checkpoint 1 after a crash", &listed).await?;
    life.shows("after three commits", 0..10)?;
    life.is_tidy("after three commits")
}

pub async fn g_a_later_commit_covers_a_lost_one(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let mut pending = Vec::new();
    for checkpoint in 1..=3 {
        let from = u64::from(checkpoint - 1) * 10;
        pending.extend(start.epoch(checkpoint, life.records(from..from + 10)).await?);
    }
    start.publish("of three checkpoints", &pending).await?;
    life.shows("after the commit", 0..30)
}

pub async fn h_a_zombie_cannot_commit(life: &mut Life<impl Target>) -> Verdict {
    let mut zombie = life.begin(&[]).await?;
    let stale = zombie.epoch(1, life.records(0..10)).await?;
    let mut second = life.begin(&[]).await?;
    zombie.is_refused("by a zombie, of its own output", &stale).await?;
    let listed = second.epoch(1, life.records(0..10)).await?;
    zombie.is_refused("by a zombie, of the newer start's output", &listed).await?;
    second.publish("by the newer start", &listed).await?;
    zombie.is_refused("by a zombie, after the newer start's commit", &stale).await?;
    life.shows("after all of that", 0..10)
}

pub async fn h_the_same_checkpoint_is_restored_three_times(life: &mut Life<impl Target>) -> Verdict {
    let mut start = life.begin(&[]).await?;
    let listed = start.epoch(7, life.records(0..10)).await?;
    drop(start);
    for _ in 0..3 {
        let mut again = life.begin(&listed).await?;
        again.publish("of the restored checkpoint", &listed).await?;
        again.epoch(8, life.records(10..20)).await?;
        life.shows("after the commit", 0..10)?;
    }
    Ok(())
}

pub async fn h_an_older_start_cannot_recover(life: &mut Life<impl Target>) -> Verdict {
    life.starts = 5;
    let mut newer = life.begin(&[]).await?;
    let listed = newer.epoch(1, life.records(0..10)).await?;
    life.starts = 2;
    let older = life.start(&[]).await;
    must(older.is_err(), "start 3 is refused after start 6 has recovered", "it has recovered too")?;
    newer.publish("by the newest start", &listed).await?;
    life.shows("after the commit", 0..10)
}

pub async fn i_a_savepoint_is_committed_by_a_later_start(life: &mut Life<impl Target>) -> Verdict {
    let mut first = life.begin(&[]).await?;
    let savepoint = first.epoch(1, life.records(0..10)).await?;
    drop(first);
    // Starts that crash before they commit change nothing.
    for _ in 0..3 {
        drop(life.begin(&savepoint).await?);
    }
    let mut last = life.begin(&savepoint).await?;
    last.publish("by the last start", &savepoint).await?;
    life.shows("after the commit", 0..10)
}
