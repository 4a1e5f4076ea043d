//! The protocol under many interleavings: processes that start, stall, crash and wake up as zombies over
//! one simulated log and one simulated target. What must hold is asserted inside `world`, at every
//! decision, commit and deletion.

mod process;
mod step;
mod world;

use proptest::prelude::*;
use staunch_checkpoint::{Kind, Published, Record, Slot, StopReason, log, parse_slot, slot_name};
use step::{Outcome, Step};
use world::World;

/// One step of the random run, out of 32 random bits. Progress is likelier than trouble.
fn pick(choice: u32) -> (usize, Step) {
    let process = (choice & 0xff) as usize;
    let arg = ((choice >> 8) & 0xff) as usize;
    let kind = |arg: usize| match arg {
        0..=4 => Kind::Savepoint { name: "s".into() },
        5 => Kind::Stop,
        6 => Kind::Final,
        _ => Kind::Periodic,
    };
    let step = match (choice >> 16) % 1000 {
        0..60 => Step::Trigger(kind(arg)),
        60..97 => Step::Read(1 + arg as u64 % 3),
        97..557 => Step::Deliver(arg),
        557..677 => Step::Create(match arg % 16 {
            0 => Outcome::UnknownDone,
            1 => Outcome::UnknownLater,
            2 => Outcome::Failed,
            _ => Outcome::Known,
        }),
        677..757 => Step::Confirm,
        757..847 => Step::Commit(arg),
        847..937 => Step::Answer(arg),
        937..957 => Step::Expire,
        957..977 => Step::Repeat(arg),
        977..987 => Step::Timeout,
        987..989 => Step::Lose(arg),
        989..993 => Step::Fail(arg),
        993..995 => Step::Ghost(arg),
        995..997 => Step::Crash,
        _ => Step::Start,
    };
    (process, step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_committed_once_over_crashes_zombies_and_unknown_outcomes(
        choices in proptest::collection::vec(any::<u32>(), 1..1500),
    ) {
        let mut world = World::default();
        world.step(0, &Step::Start);
        for choice in choices {
            let (process, step) = pick(choice);
            world.step(process, &step);
        }
        world.finish();
    }
}

/// The random runs reach what they are meant to reach.
#[test]
fn the_random_runs_hit_every_kind_of_trouble() {
    let mut seen = world::Seen::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..1500 {
        let mut world = World::default();
        world.step(0, &Step::Start);
        for _ in 0..1000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (process, step) = pick((random >> 32) as u32);
            world.step(process, &step);
        }
        world.finish();
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    let world::Seen {
        decisions,
        carried,
        fenced,
        late_creations,
        recommits,
        unknown,
        stopped,
        expired,
        aborted,
    } = seen;
    for (what, count) in [
        ("decisions", decisions),
        ("carried committables decided", carried),
        ("fenced coordinators", fenced),
        ("creations of deleted slots", late_creations),
        ("recommits", recommits),
        ("unknown outcomes", unknown),
        ("generations that stopped themselves", stopped),
        ("deleted slots", expired),
        ("aborted checkpoints", aborted),
    ] {
        assert!(count > 10, "{what}: {count}");
    }
}

/// All orders of everything that can happen to one generation within `depth` steps, each followed by a
/// crash and a recovery that runs to the end.
fn explore(world: &World, steps: &[Step], depth: usize, ends: &mut u64) {
    let mut stuck = true;
    if depth > 0 {
        for step in steps {
            let mut next = world.clone();
            if next.step(0, step) {
                stuck = false;
                explore(&next, steps, depth - 1, ends);
            }
        }
    }
    if stuck {
        *ends += 1;
        let mut end = world.clone();
        end.step(0, &Step::Crash);
        end.finish();
    }
}

#[test]
fn every_interleaving_of_a_small_job_recovers_to_exactly_once() {
    let mut world = World::small();
    for step in [Step::Start, Step::Create(Outcome::Known), Step::Confirm, Step::Read(2)] {
        assert!(world.step(0, &step), "{step:?}");
    }
    let steps = [
        Step::Trigger(Kind::Periodic),
        Step::Deliver(0),
        Step::Deliver(1),
        Step::Deliver(2),
        Step::Timeout,
        Step::Create(Outcome::Known),
        Step::Create(Outcome::UnknownDone),
        Step::Confirm,
        Step::Commit(0),
        Step::Answer(0),
    ];
    let mut ends = 0;
    explore(&world, &steps, 9, &mut ends);
    println!("{ends} ends");
    assert!(ends > 10_000, "{ends}");
}

#[test]
fn a_zombie_that_creates_its_deleted_slot_again_is_found_out_by_the_listing() {
    let mut world = World::small();
    let run = |world: &mut World, process: usize, steps: &[Step]| {
        for step in steps {
            assert!(world.step(process, step), "{step:?}");
        }
    };
    let all = [Step::Deliver(0), Step::Deliver(1), Step::Deliver(2)];
    let claim = [Step::Start, Step::Create(Outcome::Known), Step::Confirm, Step::Read(2)];
    run(&mut world, 0, &claim);
    run(&mut world, 0, &[Step::Trigger(Kind::Periodic)]);
    run(&mut world, 0, &all);
    // Process 0 sleeps with its manifest in hand; a new one fences it at that very slot.
    run(&mut world, 1, &claim);
    run(&mut world, 1, &[Step::Trigger(Kind::Periodic)]);
    run(&mut world, 1, &all);
    run(&mut world, 1, &[Step::Create(Outcome::Known), Step::Confirm, Step::Answer(0)]);
    let fence = parse_slot(&slot_name(Slot(2))).unwrap();
    assert!(matches!(world.record(fence), Some(Record::Fence(_))));
    // As if more than KEPT_FENCES generations had passed: the fence that stopped process 0 is deleted.
    run(&mut world, 2, &claim[..3]);
    world.delete(fence);
    run(&mut world, 0, &[Step::Create(Outcome::Known)]);
    assert!(matches!(world.record(fence), Some(Record::Checkpoint(_))), "created again");
    assert_eq!(log::confirm(fence, &world.slots()), Published::Taken);
    run(&mut world, 0, &[Step::Confirm, Step::Answer(0)]);
    assert_eq!(world.ended(0), Some(&StopReason::Fenced));
    world.finish();
}
