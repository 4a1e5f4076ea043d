use super::*;
use crate::testing::{fence, manifest, with_files};

fn expire(log: &[Entry], retained: usize, unconfirmed: &BTreeSet<Prepared>) -> Expiry {
    expiry(log, &choose(log, retained, unconfirmed))
}

fn none<T: Ord>() -> BTreeSet<T> {
    BTreeSet::new()
}

fn slots(expiry: &Expiry) -> Vec<u64> {
    expiry.slots.iter().map(|slot| slot.0).collect()
}

fn opened(slot: u64, generation: u64, restored: Option<u64>) -> Entry {
    Entry::fence(Slot(slot), &fence(generation, 1, restored))
}

fn taken(slot: u64, id: u32, files: &[&str]) -> Entry {
    Entry::checkpoint(Slot(slot), &with_files(manifest(id, 1, &[id]), files))
}

fn savepoint(slot: u64, id: u32, files: &[&str]) -> Entry {
    let manifest = Manifest { kind: Kind::Savepoint { name: "s".into() }, ..manifest(id, 1, &[]) };
    Entry::checkpoint(Slot(slot), &with_files(manifest, files))
}

#[test]
fn the_newest_checkpoints_stay_and_older_ones_go_with_the_files_that_only_they_use() {
    let log = [
        opened(1, 1, None),
        taken(2, 1, &["base", "d1"]),
        taken(3, 2, &["base", "d2"]),
        taken(4, 3, &["base", "d3"]),
    ];
    let expiry = expire(&log, 2, &none());
    assert_eq!(expiry, Expiry { slots: vec![Slot(2)], files: vec!["d1".into()] });
}

#[test]
fn the_newest_stays_even_if_none_is_to_be_retained() {
    let log = [opened(1, 1, None), taken(2, 1, &["a"]), taken(3, 2, &["b"])];
    assert_eq!(slots(&expire(&log, 0, &none())), [2]);
}

#[test]
fn savepoints_stay_with_their_files_and_are_not_counted() {
    let log = [
        opened(1, 1, None),
        savepoint(2, 1, &["s"]),
        taken(3, 2, &["s", "a"]),
        taken(4, 3, &["b"]),
        savepoint(5, 4, &["b"]),
    ];
    let expiry = expire(&log, 1, &none());
    assert_eq!(expiry, Expiry { slots: vec![Slot(3)], files: vec!["a".into()] });
}

#[test]
fn a_checkpoint_whose_output_is_not_confirmed_stays() {
    let log = [opened(1, 1, None), taken(2, 1, &["a"]), taken(3, 2, &["b"]), taken(4, 3, &["c"])];
    let What::Checkpoint { pending, .. } = &log[1].what else { panic!("a checkpoint") };
    assert_eq!(slots(&expire(&log, 1, pending)), [3]);
    assert_eq!(slots(&expire(&log, 1, &none())), [2, 3]);
}

#[test]
fn what_the_newest_fence_restored_stays_until_something_is_decided_after_it() {
    let mut log = vec![
        opened(1, 1, None),
        taken(2, 1, &["a"]),
        taken(3, 2, &["b"]),
        taken(4, 3, &["c"]),
        opened(5, 2, Some(2)),
    ];
    assert_eq!(slots(&expire(&log, 1, &none())), [3]);
    log.push(taken(6, 4, &["d"]));
    assert_eq!(slots(&expire(&log, 1, &none())), [2, 3, 4]);
}

#[test]
fn only_fences_far_in_the_past_go() {
    let kept = KEPT_FENCES as u64;
    let mut log: Vec<Entry> = (1..=kept + 3).map(|n| opened(n, n, None)).collect();
    log.push(taken(kept + 4, 1, &[]));
    assert_eq!(slots(&expire(&log, 1, &none())), [1, 2, 3]);
}

#[test]
fn a_start_that_decides_nothing_does_not_leave_its_fence_for_ever() {
    let kept = KEPT_FENCES as u64;
    let fences = |from: u64| (from..from + kept).map(|n| opened(n, n, Some(4)));
    let surplus = |log: &[Entry]| surplus_fences(log).iter().map(|slot| slot.0).collect::<Vec<_>>();
    let mut log = vec![opened(1, 1, None), opened(2, 2, None), opened(3, 3, None), taken(4, 1, &[])];
    log.extend(fences(5));
    // The one at 3 decided the checkpoint.
    assert_eq!(surplus(&log), [1, 2]);
    log.push(opened(5 + kept, 5 + kept, Some(4)));
    assert_eq!(surplus(&log), [1, 2, 5]);
    assert_eq!(surplus(&log[4..]), [5]);
    assert_eq!(surplus(&log[4..4 + KEPT_FENCES]), Vec::<u64>::new());
    assert_eq!(surplus(&[]), Vec::<u64>::new());
}

#[test]
fn an_empty_log_expires_nothing() {
    assert!(expire(&[], 1, &none()).is_empty());
}

#[test]
fn orphans_are_the_files_that_no_manifest_names() {
    let one = with_files(manifest(1, 1, &[]), &["state/base", "state/d1"]);
    let two = with_files(manifest(2, 1, &[]), &["state/base", "state/d2"]);
    let stored: Vec<String> = ["state/base", "state/d1", "state/d2", "state/x"].map(String::from).into();
    assert_eq!(orphans(&stored, [&one, &two]), ["state/x"]);
    assert_eq!(orphans(&stored, [&two]), ["state/d1", "state/x"]);
    assert_eq!(orphans(&[], [&two]), Vec::<String>::new());
}
