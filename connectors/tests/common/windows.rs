//! The crash windows of `exactly-once.md`, for any transactional sink.

use super::life::{Life, Target, rows};
use staunch_core::sink::CommitError;

/// Makes a test of each window for a target.
#[macro_export]
macro_rules! windows {
    ($target:expr) => {
        $crate::windows!($target;
            a_crash_before_prepare_shows_nothing,
            b_an_unlisted_prepared_part_is_removed,
            c_recovery_keeps_what_is_listed_and_publishes_nothing,
            d_a_decided_part_is_committed_after_a_crash,
            e_a_half_done_commit_is_completed,
            f_a_commit_repeated_after_a_crash_is_a_success,
            g_a_later_commit_covers_a_lost_one,
            h_a_zombie_cannot_commit,
            h_the_same_checkpoint_is_restored_three_times,
            i_a_savepoint_is_committed_by_a_later_start,
            an_aborted_checkpoint_is_covered_by_the_next,
            an_empty_epoch_prepares_nothing,
            lost_output_is_refused_loudly,
            another_lineage_is_refused,
            an_older_start_cannot_recover,
            a_start_with_other_instances_goes_on,
        );
    };
    ($target:expr; $($window:ident),* $(,)?) => {
        $(#[test] fn $window() { common::run(common::windows::$window($target)); })*
    };
}

fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn a_crash_before_prepare_shows_nothing(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..100)).await;
    drop(first);
    let mut second = life.start(&[]).await.unwrap();
    assert!(life.visible().is_empty());
    assert_eq!(life.leftovers(), 0);
    second.write(rows(0..100)).await;
    let listed = second.prepare(1).await;
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..100));
    assert_eq!(life.leftovers(), 0);
}

pub async fn b_an_unlisted_prepared_part_is_removed(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let undecided = first.prepare(1).await;
    assert_eq!(undecided.iter().map(|c| c.records).sum::<u64>(), 10);
    drop(first);
    assert!(life.visible().is_empty() && life.leftovers() > 0);
    let mut second = life.start(&[]).await.unwrap();
    assert!(!second.removed.is_empty() && life.leftovers() == 0, "{:?}", second.removed);
    second.write(rows(0..10)).await;
    let listed = second.prepare(1).await;
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn c_recovery_keeps_what_is_listed_and_publishes_nothing(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let listed = first.prepare(1).await;
    drop(first);
    let second = life.start(&listed).await.unwrap();
    assert_eq!(second.removed, Vec::<String>::new());
    assert!(life.visible().is_empty() && life.leftovers() > 0);
    drop(second);
    let mut third = life.start(&listed).await.unwrap();
    third.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn d_a_decided_part_is_committed_after_a_crash(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let listed = first.prepare(1).await;
    // The next epoch is lost in the crash; its part must not stay, and not be published.
    first.write(rows(10..20)).await;
    first.prepare(2).await;
    drop(first);
    let mut second = life.start(&listed).await.unwrap();
    assert!(!second.removed.is_empty());
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
    assert_eq!(life.leftovers(), 0);
}

pub async fn e_a_half_done_commit_is_completed(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let listed = first.prepare(1).await;
    assert_eq!(listed.len(), 2);
    first.commit(&listed[..1]).await.unwrap();
    assert_eq!(life.visible().len(), 5);
    drop(first);
    let mut second = life.start(&listed).await.unwrap();
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn f_a_commit_repeated_after_a_crash_is_a_success(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let listed = first.prepare(1).await;
    first.commit(&listed).await.unwrap();
    first.commit(&listed).await.unwrap();
    drop(first);
    let mut second = life.start(&listed).await.unwrap();
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
    assert_eq!(life.leftovers(), 0);
}

pub async fn g_a_later_commit_covers_a_lost_one(target: impl Target) {
    let mut life = Life::new(target);
    let mut start = life.start(&[]).await.unwrap();
    let mut pending = Vec::new();
    for checkpoint in 1..=3 {
        start.write(rows(u64::from(checkpoint) * 10..u64::from(checkpoint) * 10 + 10)).await;
        pending.extend(start.prepare(checkpoint).await);
    }
    start.commit(&pending).await.unwrap();
    assert_eq!(life.visible(), rows(10..40));
}

pub async fn h_a_zombie_cannot_commit(target: impl Target) {
    let mut life = Life::new(target);
    let mut zombie = life.start(&[]).await.unwrap();
    zombie.write(rows(0..10)).await;
    let stale = zombie.prepare(1).await;
    let mut second = life.start(&[]).await.unwrap();
    refused(zombie.commit(&stale).await);
    second.write(rows(0..10)).await;
    let listed = second.prepare(1).await;
    refused(zombie.commit(&listed).await);
    second.commit(&listed).await.unwrap();
    refused(zombie.commit(&stale).await);
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn h_the_same_checkpoint_is_restored_three_times(target: impl Target) {
    let mut life = Life::new(target);
    let mut start = life.start(&[]).await.unwrap();
    start.write(rows(0..10)).await;
    let listed = start.prepare(7).await;
    drop(start);
    for _ in 0..3 {
        let mut again = life.start(&listed).await.unwrap();
        again.commit(&listed).await.unwrap();
        again.write(rows(10..20)).await;
        again.prepare(8).await;
        assert_eq!(life.visible(), rows(0..10));
    }
}

pub async fn i_a_savepoint_is_committed_by_a_later_start(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let savepoint = first.prepare(1).await;
    drop(first);
    // Starts that crash before they commit change nothing.
    for _ in 0..3 {
        drop(life.start(&savepoint).await.unwrap());
    }
    let mut last = life.start(&savepoint).await.unwrap();
    last.commit(&savepoint).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn an_aborted_checkpoint_is_covered_by_the_next(target: impl Target) {
    let mut life = Life::new(target);
    let mut first = life.start(&[]).await.unwrap();
    first.write(rows(0..10)).await;
    let mut listed = first.prepare(1).await;
    // Checkpoint 1 is given up; what was prepared for it is listed by checkpoint 2.
    first.write(rows(10..20)).await;
    listed.extend(first.prepare(2).await);
    drop(first);
    let mut second = life.start(&listed).await.unwrap();
    second.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..20));
}

pub async fn an_empty_epoch_prepares_nothing(target: impl Target) {
    let mut life = Life::new(target);
    let mut start = life.start(&[]).await.unwrap();
    start.write(Vec::new()).await;
    assert!(start.prepare(1).await.is_empty());
    assert_eq!(life.leftovers(), 0);
    start.commit(&[]).await.unwrap();
    assert!(life.visible().is_empty());
}

pub async fn lost_output_is_refused_loudly(target: impl Target) {
    let mut life = Life::new(target);
    let mut start = life.start(&[]).await.unwrap();
    start.write(rows(0..10)).await;
    let listed = start.prepare(3).await;
    life.target.lose_prepared(&life.storage);
    let why = refused(start.commit(&listed).await);
    assert!(why.contains("sink `out`") && why.contains("checkpoint 3") && why.contains("5 records"), "{why}");
    assert!(life.visible().is_empty());
}

pub async fn another_lineage_is_refused(target: impl Target) {
    let mut life = Life::new(target);
    let mut start = life.start(&[]).await.unwrap();
    start.write(rows(0..10)).await;
    let listed = start.prepare(1).await;
    start.commit(&listed).await.unwrap();
    drop(start);
    life.lineage = "life-2".into();
    life.starts = 0;
    let why = life.start(&[]).await.err().expect("must be refused").to_string();
    assert!(why.contains("another run"), "{why}");
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn an_older_start_cannot_recover(target: impl Target) {
    let mut life = Life::new(target);
    life.starts = 5;
    let mut newer = life.start(&[]).await.unwrap();
    newer.write(rows(0..10)).await;
    let listed = newer.prepare(1).await;
    life.starts = 2;
    assert!(life.start(&[]).await.is_err());
    newer.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..10));
}

pub async fn a_start_with_other_instances_goes_on(target: impl Target) {
    let mut life = Life::new(target);
    let mut listed = Vec::new();
    for (step, instances) in [3, 1, 4, 2].into_iter().enumerate() {
        life.instances = instances;
        let mut start = life.start(&listed).await.unwrap();
        start.commit(&listed).await.unwrap();
        let from = 12 * step as u64;
        start.write(rows(from..from + 12)).await;
        listed = start.prepare(step as u32 + 1).await;
        assert_eq!(listed.len(), instances as usize);
    }
    let mut last = life.start(&listed).await.unwrap();
    last.commit(&listed).await.unwrap();
    assert_eq!(life.visible(), rows(0..48));
}
