//! The rules for sources: splits, positions, waiting, the end, and reading by other readers.
//!
//! A rule plays the engine by hand: it lists splits, opens readers, polls them as workers do, drops them in
//! the middle and opens others where they stood. What an [`Input`] says must be there is compared record by
//! record.
//!
//! ```
//! use staunch::memory::{Collection, collection};
//! use staunch_testing::conformance::source::{Input, check_all};
//!
//! struct Numbers;
//!
//! impl Input for Numbers {
//!     type Record = u64;
//!     type Source = Collection<u64>;
//!
//!     fn source(&self) -> Collection<u64> {
//!         collection((0..100).collect::<Vec<u64>>()).splits(2)
//!     }
//!
//!     fn expected(&self) -> Vec<(String, Vec<u64>)> {
//!         let split = |from| (0..100).skip(from).step_by(2).collect();
//!         vec![("0".into(), split(0)), ("1".into(), split(1))]
//!     }
//! }
//!
//! let report = check_all(|| Numbers);
//! assert!(report.violations().is_empty(), "{report}");
//! assert!(!report.skipped().is_empty(), "this input cannot grow, and the report says so");
//! ```

mod bench;
mod extras;
mod positions;
mod progress;
mod reading;
mod splits;

use super::{Can, Outcome, Report, Rule, Verdict, Violation, Watch, as_test, rule_of, table};
use bench::Bench;
use staunch::core::source::Source;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// An input with its source, as a test sees them. It outlives readers, as a file or a topic does.
///
/// What not every input can do is answered with [`Can::Not`] and a reason; the rules that need it are then
/// skipped, and say so.
pub trait Input: 'static {
    /// What the source yields.
    type Record: Clone + PartialEq + Debug + Send + 'static;
    /// The source.
    type Source: Source<Record = Self::Record>;

    /// A description of the source, as a restarted program makes it.
    fn source(&self) -> Self::Source;

    /// What is to be read now: the identity of each split, and its records in order. One split at least must
    /// have [`FEWEST_RECORDS`], or nothing would be shown.
    fn expected(&self) -> Vec<(String, Vec<Self::Record>)>;

    /// Lets all splits come to an end. As given here: they do so without being told.
    fn end(&self) -> Can {
        Can::Done(())
    }

    /// Appends to a split, and says which records are to come.
    fn grow(&self, _split: &str) -> Can<Vec<Self::Record>> {
        Can::Not("the input does not say how it grows")
    }

    /// Adds a split, and says its identity and its records. To see the old ones keep theirs, add one that a
    /// listing has before them.
    fn add_split(&self) -> Can<(String, Vec<Self::Record>)> {
        Can::Not("the input does not say how it gets new splits")
    }

    /// Makes all positions of this split, but its beginning, impossible: the file is cut, the log is
    /// truncated.
    fn lose_positions(&self, _split: &str) -> Can {
        Can::Not("the input does not say how positions get lost")
    }

    /// Puts malformed pieces between the good records, which stay as [`Input::expected`] says. Returns how
    /// many each split now has.
    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        Can::Not("the input does not say how it gets malformed")
    }

    /// Window `j`, for sources that acknowledge to an outside system: how many records of the split, from
    /// the beginning, that system takes for processed.
    fn acknowledged(&self, _split: &str) -> Can<u64> {
        Can::Not("the source acknowledges nothing to an outside system")
    }

    /// Records that one poll may hand out beyond what is wanted, because a batch cannot be cut.
    fn batch(&self) -> usize {
        64
    }

    /// Longest wait for what must come: a record, a waker's call, the return of a poll.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// Records that one split of an [`Input`] must have.
pub const FEWEST_RECORDS: usize = 8;

/// The rules; each is `file :: name`, its window, and its sentence.
#[doc(hidden)]
#[macro_export]
macro_rules! __source_rules {
    ([$($with:tt)*] $($more:tt)*) => {
        $($with)*! { [$($more)*]
            splits::an_identity_names_the_same_records_in_every_listing None,
                "listed again by a new source, splits have the same unique identities, and the same records behind them";
            splits::splits_and_positions_survive_as_json None,
                "split and position mean the same after they were written as JSON and read back";
            splits::reading_again_gives_the_same_records None,
                "each reading from the beginning yields the same records in the same order, whatever the room";
            splits::other_readers_in_any_order_read_the_same None,
                "readers that are dropped anywhere and opened elsewhere, in any order and beside each other, read each record once";
            splits::new_splits_leave_the_old_ones_alone None,
                "a new split has a new identity; the old ones keep theirs, and their positions";
            positions::a_position_is_of_the_next_record None,
                "a reader opened at any position that was met yields exactly the records that follow it";
            positions::an_unread_reader_stands_where_it_was_opened None,
                "before its first poll a reader stands where it was opened";
            positions::a_poll_without_records_leaves_the_position None,
                "polls that hand nothing out do not move the position over a record";
            positions::opening_at_the_end_gives_nothing None,
                "a reader opened at the position behind the last record yields nothing";
            positions::what_is_appended_follows_the_old_position None,
                "what was appended while no reader was open is read next, from the old position";
            positions::a_lost_position_is_an_error None,
                "a position that is no longer there is an error, and never the nearest one";
            progress::poll_never_blocks None,
                "a poll returns at once, whether there is something to read or not";
            progress::poll_honours_the_room None,
                "a poll hands out no more than there is room for, but for a batch that cannot be cut";
            progress::an_idle_reader_calls_the_waker None,
                "whoever polls only when the last waker was called reads all that is there";
            progress::growth_wakes_an_idle_reader None,
                "what is appended while a reader is idle calls the waker of the last poll, and is read";
            progress::a_reader_with_nothing_is_idle_or_at_its_end None,
                "a reader that has nothing says Idle or End, and not Ready for ever";
            progress::the_end_is_final None,
                "a split comes to its end, and after End there is nothing but End";
            extras::bad_input_is_reported_and_passed_over None,
                "malformed input is reported with place and reason, once, and positions around it hold";
            extras::acknowledging_changes_nothing_that_is_read Some('j'),
                "acknowledgements may come, come twice, come late or be lost: the same is read";
            extras::j_nothing_is_acknowledged_before_its_decision Some('j'),
                "the outside is told of exactly what a decided position covers, and of nothing before";
            extras::j_a_later_notice_covers_a_lost_one Some('j'),
                "after an acknowledgement that was lost in a crash nothing is lost, and the next one covers it";
        }
    };
}

crate::__source_rules!([table]);

macro_rules! dispatch {
    ([] $($file:ident :: $name:ident $window:expr, $says:literal;)*) => {
        fn try_rule<I: Input>(name: &str, bench: &Bench<I>) -> Verdict {
            match name {
                $(stringify!($name) => $file::$name(bench),)*
                other => Err(super::Stop::broken("the name of a rule", other)),
            }
        }
    };
}
crate::__source_rules!([dispatch]);

/// Tries one rule on a new input.
pub fn check<I: Input>(name: &'static str, make: impl FnOnce() -> I + Send + 'static) -> Outcome {
    Watch::run(rule_of(RULES, name), move |watch| try_rule(name, &Bench::new(make(), watch)?))
}

/// Tries all rules, each on an input of its own.
pub fn check_all<I: Input>(make: impl Fn() -> I + Send + Sync + 'static) -> Report {
    let make = Arc::new(make);
    let check_one = |rule: &Rule| {
        let make = Arc::clone(&make);
        (*rule, check(rule.name, move || make()))
    };
    Report { outcomes: RULES.iter().map(check_one).collect() }
}

/// One rule as a test: a skip is printed. Called by [`source_conformance`](crate::source_conformance).
///
/// # Errors
/// The rule is broken.
pub fn test<I: Input>(
    name: &'static str,
    make: impl FnOnce() -> I + Send + 'static,
) -> Result<(), Violation> {
    as_test(rule_of(RULES, name), check(name, make))
}
