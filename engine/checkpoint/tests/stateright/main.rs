//! The real protocol under every order of everything that may happen within bounds, checked by stateright:
//! processes that start, die and live on as zombies, over one log, one target, one folder of state files.
//!
//! `tests/random` takes random walks through more trouble and far longer histories; this one leaves nothing
//! out, in a smaller world. `examples/model_check.rs` explores whatever bounds it is given.
//!
//! Reading order: `bounds` (what may happen), `world` (what is durable, and what must hold of it), `parts`
//! and `process` (who acts), `model` (all of it for stateright), `settle` (recovery from every state).

mod bounds;
mod exploration;
mod model;
mod parts;
mod process;
mod settle;
mod world;

use bounds::{Bounds, Faults, Mistake};
use exploration::{Found, Search, explore};
use model::{ENDS, RECOVERS, SAFETY};
use world::Broken;

const NONE: Faults = Faults::NONE;

fn check(bounds: Bounds) -> Found {
    let found = explore(bounds, Mistake::None, Search::all(2));
    println!(
        "{:?}: {} states, {} of them different, depth {}, recovered from {} worlds, {:?}",
        bounds.faults, found.states, found.unique, found.depth, found.recovered, found.took
    );
    assert!(found.broken.is_empty(), "{bounds:?}: {:#?}", found.broken);
    assert!(found.complete);
    assert!(found.unmet.is_empty(), "{bounds:?} does not bring about: {:?}", found.unmet);
    found
}

fn check_faults(faults: Faults) -> Found {
    check(Bounds { faults, ..Bounds::SMALL })
}

#[test]
fn every_order_of_late_lost_and_repeated_messages_and_a_crash_keeps_every_promise() {
    let found = check_faults(Faults { crashes: 1, timeouts: 1, losses: 1, repeats: 1, ..NONE });
    // Records expire only at decisions, so there are fewer orders than where they also did at commits.
    assert!(found.unique > 40_000, "{found:?}");
    check_faults(Faults { timeouts: 2, overtakes: 1, ..NONE });
    check_faults(Faults { timeouts: 1, failures: 1, crashes: 1, ..NONE });
}

#[test]
fn every_place_for_two_crashes_and_an_unknown_outcome_keeps_every_promise() {
    let found = check_faults(Faults { crashes: 2, unknown: 1, ..NONE });
    assert!(found.unique > 20_000, "{found:?}");
    check_faults(Faults { unknown: 2, ..NONE });
}

#[test]
fn every_interleaving_with_a_zombie_and_a_crash_keeps_every_promise() {
    let found = check_faults(Faults { zombies: 1, crashes: 1, ..NONE });
    assert!(found.unique > 50_000, "{found:?}");
    let one = Bounds { records: 1, ..Bounds::SMALL };
    check(Bounds { faults: Faults { zombies: 1, unknown: 1, ..NONE }, ..one });
}

/// The log after very many generations, of which only the newest fence is left: what the listing after each
/// creation is for.
#[test]
fn two_zombies_whose_fences_are_deleted_decide_nothing() {
    let faults = Faults { zombies: 2, forgets: 1, ..NONE };
    let found = check(Bounds { records: 1, claims: 1, faults, ..Bounds::SMALL });
    assert!(found.unique > 50_000, "{found:?}");
}

#[test]
fn sinks_of_several_instances_savepoints_and_stops_keep_every_promise() {
    let faults = Faults { crashes: 1, savepoints: 1, stops: 1, ..NONE };
    check(Bounds { sinks: 2, instances: 2, faults, ..Bounds::SMALL });
    let faults = Faults { crashes: 1, timeouts: 1, ..NONE };
    check(Bounds { records: 3, instances: 2, retained: 2, faults, ..Bounds::SMALL });
}

/// Name of the property that does not hold once this is broken.
fn name(broken: Broken) -> &'static str {
    SAFETY.iter().find(|(of, _)| *of == broken).expect("every break has its property").1().name
}

/// Plants a mistake, and expects that it breaks this promise, which holds without it.
fn finds(mistake: Mistake, faults: Faults, expected: &'static str) {
    let mut bounds = Bounds { faults, ..Bounds::SMALL };
    if faults.zombies > 1 {
        bounds = Bounds { records: 1, claims: 1, ..bounds };
    }
    let search = Search { breadth_first: true, until: Some(expected), ..Search::all(1) };
    let found = explore(bounds, mistake, search);
    let way = found.broken.get(expected);
    let way = way.unwrap_or_else(|| panic!("{mistake:?} is not noticed in {} states", found.unique));
    println!("{mistake:?}: {} steps, found in {} states: {expected}\n    {way:?}", way.len(), found.unique);
    let sound = explore(bounds, Mistake::None, Search::all(2));
    assert!(sound.broken.is_empty(), "without the mistake: {:#?}", sound.broken);
}

macro_rules! mistakes {
    ($($test:ident: $mistake:ident, $faults:expr => $expected:expr;)*) => {
        $(#[test]
        fn $test() {
            finds(Mistake::$mistake, $faults, $expected);
        })*

        #[test]
        fn every_mistake_has_its_test() {
            let tested = [$(Mistake::$mistake),*];
            for (name, mistake) in Mistake::ALL {
                assert!(*mistake == Mistake::None || tested.contains(mistake), "{name}");
            }
        }
    };
}

const ZOMBIE: Faults = Faults { zombies: 1, ..NONE };
const CRASH: Faults = Faults { crashes: 1, ..NONE };

mistakes! {
    a_log_that_overwrites_is_found: LogOverwrites, ZOMBIE => name(Broken::TwoDecisions);
    not_listing_after_a_creation_is_found:
        ConfirmSkipped, Faults { zombies: 2, forgets: 1, ..NONE } => name(Broken::FalseBelief);
    a_start_without_a_fence_is_found: FenceSkipped, ZOMBIE => name(Broken::NotPrepared);
    taking_a_fence_for_ones_own_is_found: TakenFenceIsOurs, ZOMBIE => name(Broken::NotPrepared);
    taking_an_unknown_outcome_for_success_is_found:
        UnknownIsSuccess, Faults { unknown: 1, ..NONE } => name(Broken::FalseBelief);
    counting_an_acknowledgement_twice_is_found:
        AckCountedTwice, Faults { repeats: 1, ..NONE } => name(Broken::NotAcknowledged);
    deciding_before_everybody_has_acknowledged_is_found:
        TimeoutDecides, Faults { timeouts: 1, ..NONE } => name(Broken::NotAcknowledged);
    positions_one_barrier_late_are_found: PositionsLate, NONE => name(Broken::WrongCut);
    records_of_the_next_epoch_before_the_barrier_are_found: StashOff, NONE => name(Broken::WrongCut);
    committing_before_the_decision_is_found: CommitBeforeDecision, NONE => name(Broken::Undecided);
    a_target_that_commits_twice_is_found: CommitNotIdempotent, CRASH => name(Broken::Doubled);
    a_target_without_a_fence_is_found: TargetUnfenced, ZOMBIE => name(Broken::ZombieCommitted);
    not_recommitting_at_a_start_is_found: RecommitSkipped, CRASH => RECOVERS;
    acknowledging_before_output_is_durable_is_found: PreparedNotDurable, CRASH => name(Broken::DecidedAborted);
    aborting_what_is_listed_is_found: ListedAborted, CRASH => name(Broken::DecidedAborted);
    deleting_files_that_others_need_is_found: SharedFilesDeleted, NONE => name(Broken::NeededDeleted);
    deleting_files_before_their_record_is_found: FilesFirst, NONE => name(Broken::NeededDeleted);
    a_job_that_never_ends_is_found: ConfirmationsLost, NONE => ENDS;
}
