//! The rules for exactly-once sinks: every crash window of a checkpoint, and what holds besides.
//!
//! A rule plays the engine by hand: it opens committer and writers, lets them prepare, crashes by dropping
//! them, starts again with what a manifest would list, and looks at the target as a reader does. Windows `a`
//! to `i` are here; `j`, an acknowledgement to the outside that is lost, is about sources and is in
//! [`source`](super::source).
//!
//! ```
//! use staunch::memory::{Collected, collect};
//! use staunch_testing::conformance::sink::{Row, check_all};
//!
//! let report = check_all(collect::<Row>);
//! assert!(report.violations().is_empty(), "{report}");
//! ```
//!
//! [`Life`] and [`Start`] are public, for what only one connector can do wrong.

mod collected;
mod cuts;
mod habits;
mod life;
mod windows;

pub use life::{Cut, Life, Row, Start, committable, row, rows};

use super::{Can, Outcome, Report, Rule, Verdict, Violation, Watch, as_test, rule_of, table};
use crate::storage::MemoryStorage;
use staunch::core::sink::Sink;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// A target with its sink, as a test sees them. It outlives crashes: dropping writers and committers is the
/// crash, and the target stays.
pub trait Target: 'static {
    /// What the sink takes.
    type Record: Clone + PartialEq + Debug + Send + 'static;
    /// The sink.
    type Sink: Sink<Record = Self::Record>;

    /// A description of the sink, as a restarted program makes it.
    fn sink(&self) -> Self::Sink;

    /// Record number `n`. Different numbers make different records. For sinks that can take any record,
    /// [`row`] makes one.
    fn record(&self, n: u64) -> Self::Record;

    /// What a reader of the target sees, in any order.
    fn visible(&self) -> Vec<Self::Record>;

    /// Pieces of prepared output that are neither published nor removed. As given here: what a staged sink
    /// has in the checkpoint storage. Others count in their target.
    fn leftovers(&self, storage: &MemoryStorage) -> usize {
        storage.names().map_or(0, |names| names.len())
    }

    /// Loses all prepared output behind the sink's back. As given here: what is staged.
    fn lose_prepared(&self, storage: &MemoryStorage) -> Can {
        for name in storage.names().unwrap_or_default() {
            if storage.lose(&name).is_err() {
                return Can::Not("the checkpoint storage does not lose what it is told to lose");
            }
        }
        Can::Done(())
    }

    /// The next commit is to happen, and its answer to be lost.
    fn lose_next_answer(&self, _storage: &MemoryStorage) -> Can {
        Can::Not("the target has no way to lose the answer to a commit")
    }

    /// Longest time that one rule may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// The rules; each is `file :: name`, its window, and its sentence.
#[doc(hidden)]
#[macro_export]
macro_rules! __sink_rules {
    ([$($with:tt)*] $($more:tt)*) => {
        $($with)*! { [$($more)*]
            windows::a_crash_before_prepare_shows_nothing Some('a'),
                "records that are written and not prepared are seen by nobody, and are gone after a crash";
            windows::b_an_unlisted_prepared_part_is_removed Some('b'),
                "prepared output that the restored checkpoint does not list is found, removed and reported";
            windows::b_an_undecided_id_is_used_again Some('b'),
                "a checkpoint's id that was prepared and not decided may be prepared again with other records";
            windows::b_an_aborted_checkpoint_is_covered_by_the_next Some('b'),
                "output of a checkpoint that was given up is published when a later one lists it, under its own ids";
            windows::c_recovery_keeps_what_is_listed_and_publishes_nothing Some('c'),
                "a recovery keeps what is listed and publishes nothing by itself, as often as it is repeated";
            windows::d_a_decided_part_is_committed_after_a_crash Some('d'),
                "what was decided and not published is published by the next start, and only that";
            windows::d_a_commit_publishes_only_what_it_is_given Some('d'),
                "a commit publishes what it is given and nothing else that is prepared";
            windows::e_a_half_done_commit_is_completed Some('e'),
                "after a crash in the middle of a commit the rest is published, and what was published stays single";
            windows::e_a_lost_answer_is_asked_for_again Some('e'),
                "a commit whose answer is lost is asked for again, and its records are there once";
            windows::f_a_commit_repeated_after_a_crash_is_a_success Some('f'),
                "committing what is published already is a success and changes nothing, also after a crash";
            windows::g_a_later_commit_covers_a_lost_one Some('g'),
                "one commit publishes the output of several checkpoints, each record once";
            windows::h_a_zombie_cannot_commit Some('h'),
                "once a newer start has recovered, commits of older ones are refused";
            windows::h_the_same_checkpoint_is_restored_three_times Some('h'),
                "a checkpoint that is restored again and again is published once";
            windows::h_an_older_start_cannot_recover Some('h'),
                "a recovery by an older start than the newest is refused, and the newest goes on";
            windows::i_a_savepoint_is_committed_by_a_later_start Some('i'),
                "output of a savepoint survives starts that crash before they commit, and is published by a later one";
            cuts::a_crash_while_a_cut_is_open_shows_nothing Some('a'),
                "a crash while a cut is open, with records of the next epoch written, shows nothing and leaves nothing";
            cuts::records_after_a_cut_belong_to_the_next_epoch None,
                "records that are written after a cut and before its answer are published by the next checkpoint, not by this";
            cuts::records_after_a_cut_are_gone_with_a_crash Some('d'),
                "after a crash a cut that was answered is published, and what was written after it is not";
            cuts::two_cuts_may_be_open None,
                "the next cut may come before the answer to the last, and each answers for its own epoch";
            habits::a_check_leaves_no_trace None,
                "opening a committer and checking the target takes nothing over: the running start goes on";
            habits::a_start_with_other_instances_goes_on None,
                "a start with another number of instances publishes what the old ones prepared, and goes on";
            habits::an_empty_epoch_prepares_nothing None,
                "an epoch without records has no committable and leaves nothing";
            habits::another_lineage_is_refused None,
                "a target that holds output of another life of the job is refused at recovery, and stays as it is";
            habits::dropping_publishes_and_removes_nothing None,
                "dropping writers and committers neither publishes nor removes prepared output";
            habits::it_promises_exactly_once None,
                "the sink says that it is exactly-once; this suite is for no other";
            habits::lost_output_is_refused_loudly None,
                "a commit of output that is lost is refused, and the error names sink, checkpoint and records";
            habits::prepared_output_says_how_many_records_it_holds None,
                "the records that committables say they hold are those that were written, epoch by epoch";
        }
    };
}

crate::__sink_rules!([table]);

macro_rules! dispatch {
    ([] $($file:ident :: $name:ident $window:expr, $says:literal;)*) => {
        async fn try_rule<T: Target>(name: &str, life: &mut Life<T>) -> Verdict {
            match name {
                $(stringify!($name) => $file::$name(life).await,)*
                other => Err(super::Stop::broken("the name of a rule", other)),
            }
        }
    };
}
crate::__sink_rules!([dispatch]);

/// Tries one rule on a new target.
pub fn check<T: Target>(name: &'static str, make: impl FnOnce() -> T + Send + 'static) -> Outcome {
    Watch::run(rule_of(RULES, name), move |watch| {
        let runtime = super::watch::runtime()?;
        let mut life = Life::new(make());
        let limit = life.target.patience();
        watch.ask("the sink", limit, || runtime.block_on(try_rule(name, &mut life)))
    })
}

/// Tries all rules, each on a target of its own.
pub fn check_all<T: Target>(make: impl Fn() -> T + Send + Sync + 'static) -> Report {
    let make = Arc::new(make);
    let check_one = |rule: &Rule| {
        let make = Arc::clone(&make);
        (*rule, check(rule.name, move || make()))
    };
    Report { outcomes: RULES.iter().map(check_one).collect() }
}

/// One rule as a test: a skip is printed. Called by [`sink_conformance`](crate::sink_conformance).
///
/// # Errors
/// The rule is broken.
pub fn test<T: Target>(
    name: &'static str,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<(), Violation> {
    as_test(rule_of(RULES, name), check(name, make))
}
