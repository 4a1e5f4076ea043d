//! Sinks that are wrong on purpose, and the rules that they break.

use crate::wrong_sink::{Mistake, wrong};
use crate::{broken, judge};
use staunch_testing::conformance::Outcome;
use staunch_testing::conformance::sink::{RULES, check, check_all};

/// Each mistake with the rules that it breaks: the first is the one that is about it.
const TABLE: &[(Mistake, &[&str])] = &[
    (
        Mistake::WritesThrough,
        &[
            "a_crash_before_prepare_shows_nothing",
            "a_check_leaves_no_trace",
            "b_an_undecided_id_is_used_again",
            "b_an_unlisted_prepared_part_is_removed",
            "c_recovery_keeps_what_is_listed_and_publishes_nothing",
            "d_a_commit_publishes_only_what_it_is_given",
            "d_a_decided_part_is_committed_after_a_crash",
            "dropping_publishes_and_removes_nothing",
            "e_a_half_done_commit_is_completed",
            "h_a_zombie_cannot_commit",
            "h_the_same_checkpoint_is_restored_three_times",
            "lost_output_is_refused_loudly",
            "prepared_output_says_how_many_records_it_holds",
            "a_crash_while_a_cut_is_open_shows_nothing",
            "records_after_a_cut_belong_to_the_next_epoch",
            "records_after_a_cut_are_gone_with_a_crash",
            "two_cuts_may_be_open",
        ],
    ),
    (
        Mistake::CommitsInPrepare,
        &[
            "b_an_unlisted_prepared_part_is_removed",
            "a_check_leaves_no_trace",
            "b_an_undecided_id_is_used_again",
            "c_recovery_keeps_what_is_listed_and_publishes_nothing",
            "d_a_commit_publishes_only_what_it_is_given",
            "d_a_decided_part_is_committed_after_a_crash",
            "dropping_publishes_and_removes_nothing",
            "e_a_half_done_commit_is_completed",
            "h_a_zombie_cannot_commit",
            "h_the_same_checkpoint_is_restored_three_times",
            "lost_output_is_refused_loudly",
            "a_crash_while_a_cut_is_open_shows_nothing",
            "two_cuts_may_be_open",
        ],
    ),
    (
        Mistake::LeavesOrphans,
        &[
            "b_an_undecided_id_is_used_again",
            "b_an_unlisted_prepared_part_is_removed",
            "d_a_decided_part_is_committed_after_a_crash",
            "a_crash_while_a_cut_is_open_shows_nothing",
        ],
    ),
    (
        Mistake::RemovesInSilence,
        &["b_an_unlisted_prepared_part_is_removed", "d_a_decided_part_is_committed_after_a_crash"],
    ),
    (Mistake::KeepsTheFirstOfAName, &["b_an_undecided_id_is_used_again"]),
    (Mistake::DropsOlderCheckpoints, &["b_an_aborted_checkpoint_is_covered_by_the_next"]),
    (Mistake::PublishesAtRecovery, &["c_recovery_keeps_what_is_listed_and_publishes_nothing"]),
    (
        Mistake::RemovesWhatIsListed,
        &[
            "c_recovery_keeps_what_is_listed_and_publishes_nothing",
            "a_start_with_other_instances_goes_on",
            "b_an_aborted_checkpoint_is_covered_by_the_next",
            "d_a_decided_part_is_committed_after_a_crash",
            "dropping_publishes_and_removes_nothing",
            "e_a_half_done_commit_is_completed",
            "h_the_same_checkpoint_is_restored_three_times",
            "i_a_savepoint_is_committed_by_a_later_start",
            "records_after_a_cut_are_gone_with_a_crash",
        ],
    ),
    (
        Mistake::PassesOverOlderStarts,
        &[
            "d_a_decided_part_is_committed_after_a_crash",
            "a_start_with_other_instances_goes_on",
            "b_an_aborted_checkpoint_is_covered_by_the_next",
            "c_recovery_keeps_what_is_listed_and_publishes_nothing",
            "dropping_publishes_and_removes_nothing",
            "e_a_half_done_commit_is_completed",
            "h_the_same_checkpoint_is_restored_three_times",
            "i_a_savepoint_is_committed_by_a_later_start",
            "records_after_a_cut_are_gone_with_a_crash",
        ],
    ),
    (
        Mistake::CommitsAllThatIsPrepared,
        &[
            "d_a_commit_publishes_only_what_it_is_given",
            "b_an_undecided_id_is_used_again",
            "e_a_half_done_commit_is_completed",
            "two_cuts_may_be_open",
        ],
    ),
    (Mistake::KeepsOneTokenForAllInstances, &["e_a_half_done_commit_is_completed"]),
    (Mistake::AllOrNothing, &["e_a_half_done_commit_is_completed"]),
    (Mistake::RefusesAfterALostAnswer, &["e_a_lost_answer_is_asked_for_again"]),
    (Mistake::DoublesAfterALostAnswer, &["e_a_lost_answer_is_asked_for_again"]),
    (
        Mistake::RefusesWhatIsCommitted,
        &[
            "f_a_commit_repeated_after_a_crash_is_a_success",
            "b_an_undecided_id_is_used_again",
            "e_a_half_done_commit_is_completed",
            "e_a_lost_answer_is_asked_for_again",
            "h_the_same_checkpoint_is_restored_three_times",
        ],
    ),
    (
        Mistake::CommitsAgain,
        &[
            "f_a_commit_repeated_after_a_crash_is_a_success",
            "b_an_undecided_id_is_used_again",
            "e_a_half_done_commit_is_completed",
            "e_a_lost_answer_is_asked_for_again",
            "h_the_same_checkpoint_is_restored_three_times",
        ],
    ),
    (
        Mistake::CommitsTheLastOnly,
        &["g_a_later_commit_covers_a_lost_one", "b_an_aborted_checkpoint_is_covered_by_the_next"],
    ),
    (Mistake::HasNoFence, &["h_a_zombie_cannot_commit"]),
    (Mistake::FencesOnlyItsOwnOutput, &["h_a_zombie_cannot_commit"]),
    (
        Mistake::NumbersByTheCommittingStart,
        &[
            "h_the_same_checkpoint_is_restored_three_times",
            "a_crash_before_prepare_shows_nothing",
            "b_an_undecided_id_is_used_again",
            "d_a_decided_part_is_committed_after_a_crash",
            "e_a_half_done_commit_is_completed",
            "e_a_lost_answer_is_asked_for_again",
            "f_a_commit_repeated_after_a_crash_is_a_success",
            "records_after_a_cut_are_gone_with_a_crash",
        ],
    ),
    (Mistake::LetsAnOlderStartTakeOver, &["h_an_older_start_cannot_recover"]),
    (
        Mistake::RemovesAfterManyStarts,
        &["i_a_savepoint_is_committed_by_a_later_start", "a_start_with_other_instances_goes_on"],
    ),
    (Mistake::FencesAtCheck, &["a_check_leaves_no_trace", "h_an_older_start_cannot_recover"]),
    (Mistake::FencesWhenOpened, &["a_check_leaves_no_trace", "h_an_older_start_cannot_recover"]),
    (Mistake::IgnoresForeignInstances, &["a_start_with_other_instances_goes_on"]),
    (Mistake::PreparesEmptyParts, &["an_empty_epoch_prepares_nothing"]),
    (Mistake::IgnoresTheLineage, &["another_lineage_is_refused"]),
    (Mistake::ForgetsTheLineageOfHigherStarts, &["another_lineage_is_refused"]),
    (
        Mistake::AbortsWhenDropped,
        &[
            "dropping_publishes_and_removes_nothing",
            "a_start_with_other_instances_goes_on",
            "b_an_aborted_checkpoint_is_covered_by_the_next",
            "b_an_unlisted_prepared_part_is_removed",
            "c_recovery_keeps_what_is_listed_and_publishes_nothing",
            "d_a_decided_part_is_committed_after_a_crash",
            "e_a_half_done_commit_is_completed",
            "h_the_same_checkpoint_is_restored_three_times",
            "i_a_savepoint_is_committed_by_a_later_start",
            "records_after_a_cut_are_gone_with_a_crash",
        ],
    ),
    (
        Mistake::CommitsWhenDropped,
        &[
            "dropping_publishes_and_removes_nothing",
            "b_an_undecided_id_is_used_again",
            "b_an_unlisted_prepared_part_is_removed",
            "d_a_decided_part_is_committed_after_a_crash",
            "h_the_same_checkpoint_is_restored_three_times",
            "a_crash_while_a_cut_is_open_shows_nothing",
        ],
    ),
    (Mistake::IsAtLeastOnce, &["it_promises_exactly_once"]),
    (Mistake::AnswersOkForLostOutput, &["lost_output_is_refused_loudly"]),
    (Mistake::RetriesLostOutput, &["lost_output_is_refused_loudly"]),
    (Mistake::LosesInFewWords, &["lost_output_is_refused_loudly"]),
    (
        Mistake::CountsAllEpochs,
        &["prepared_output_says_how_many_records_it_holds", "records_after_a_cut_belong_to_the_next_epoch"],
    ),
    (
        Mistake::KeepsRecordsAfterPrepare,
        &[
            "an_empty_epoch_prepares_nothing",
            "b_an_aborted_checkpoint_is_covered_by_the_next",
            "d_a_commit_publishes_only_what_it_is_given",
            "g_a_later_commit_covers_a_lost_one",
            "prepared_output_says_how_many_records_it_holds",
            "records_after_a_cut_belong_to_the_next_epoch",
            "two_cuts_may_be_open",
        ],
    ),
    (
        Mistake::TakesRecordsWhenAnswering,
        &[
            "records_after_a_cut_belong_to_the_next_epoch",
            "records_after_a_cut_are_gone_with_a_crash",
            "two_cuts_may_be_open",
        ],
    ),
    (
        Mistake::AnswersBeforeItIsDurable,
        &[
            "records_after_a_cut_are_gone_with_a_crash",
            "records_after_a_cut_belong_to_the_next_epoch",
            "two_cuts_may_be_open",
        ],
    ),
    (Mistake::HasOnePlaceForOpenCuts, &["two_cuts_may_be_open"]),
    (Mistake::CommitsAnOpenCutWhenDropped, &["a_crash_while_a_cut_is_open_shows_nothing"]),
];

#[test]
fn the_right_sink_keeps_every_rule_and_none_is_skipped() {
    let report = check_all(|| wrong(Mistake::None));
    assert!(broken(&report).is_empty() && report.skipped().is_empty(), "{report}");
    assert_eq!(report.outcomes.len(), RULES.len());
}

#[test]
fn every_wrong_sink_breaks_the_rule_about_its_mistake() {
    judge(RULES, TABLE, |mistake| check_all(move || wrong(mistake)));
}

#[test]
fn a_sink_that_hangs_or_panics_breaks_the_rule_and_not_the_test() {
    let rule = "an_empty_epoch_prepares_nothing";
    for (mistake, said) in [(Mistake::Hangs, "has not returned"), (Mistake::Panics, "no more paper")] {
        match check(rule, move || wrong(mistake)) {
            Outcome::Broken(violation) => assert!(violation.to_string().contains(said), "{violation}"),
            other => panic!("{mistake:?}: {other:?}"),
        }
    }
}

#[test]
fn windows_a_to_i_have_a_rule_each() {
    for window in 'a'..='i' {
        assert!(RULES.iter().any(|rule| rule.window == Some(window)), "window {window}");
    }
}

mod the_right_sink {
    staunch_testing::sink_conformance!(crate::wrong_sink::wrong(crate::wrong_sink::Mistake::None));
}
