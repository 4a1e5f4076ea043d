//! Sources that are wrong on purpose, and the rules that they break.

use crate::wrong_source::{Mistake, wrong};
use crate::{broken, judge};
use staunch_testing::conformance::Outcome;
use staunch_testing::conformance::source::{RULES, check, check_all};

/// Each mistake with the rules that it breaks: the first is the one that is about it.
const TABLE: &[(Mistake, &[&str])] = &[
    (
        Mistake::NamesByOrderOfAHashMap,
        &["an_identity_names_the_same_records_in_every_listing", "new_splits_leave_the_old_ones_alone"],
    ),
    (Mistake::NamesByPlaceInTheListing, &["new_splits_leave_the_old_ones_alone"]),
    (Mistake::WritesHalfThePosition, &["splits_and_positions_survive_as_json"]),
    (
        Mistake::SwapsRecordsWhenThereIsRoom,
        &[
            "reading_again_gives_the_same_records",
            "a_poll_without_records_leaves_the_position",
            "an_identity_names_the_same_records_in_every_listing",
            "an_unread_reader_stands_where_it_was_opened",
            "bad_input_is_reported_and_passed_over",
            "new_splits_leave_the_old_ones_alone",
            "splits_and_positions_survive_as_json",
        ],
    ),
    (
        Mistake::SharesACursor,
        &["other_readers_in_any_order_read_the_same", "a_poll_without_records_leaves_the_position"],
    ),
    (
        Mistake::PositionOfTheLastRecord,
        &[
            "a_position_is_of_the_next_record",
            "a_poll_without_records_leaves_the_position",
            "an_unread_reader_stands_where_it_was_opened",
            "bad_input_is_reported_and_passed_over",
            "j_a_later_notice_covers_a_lost_one",
            "j_nothing_is_acknowledged_before_its_decision",
            "new_splits_leave_the_old_ones_alone",
            "acknowledging_changes_nothing_that_is_read",
            "opening_at_the_end_gives_nothing",
            "other_readers_in_any_order_read_the_same",
            "splits_and_positions_survive_as_json",
            "the_end_is_final",
            "what_is_appended_follows_the_old_position",
        ],
    ),
    (
        Mistake::PositionABatchAhead,
        &[
            "a_position_is_of_the_next_record",
            "a_poll_without_records_leaves_the_position",
            "an_unread_reader_stands_where_it_was_opened",
            "bad_input_is_reported_and_passed_over",
            "j_a_later_notice_covers_a_lost_one",
            "j_nothing_is_acknowledged_before_its_decision",
            "new_splits_leave_the_old_ones_alone",
            "acknowledging_changes_nothing_that_is_read",
            "other_readers_in_any_order_read_the_same",
            "splits_and_positions_survive_as_json",
        ],
    ),
    (
        Mistake::StandsAtTheBeginningUntilPolled,
        &["an_unread_reader_stands_where_it_was_opened", "other_readers_in_any_order_read_the_same"],
    ),
    (Mistake::MovesWithoutRoom, &["a_poll_without_records_leaves_the_position"]),
    (
        Mistake::BeginsAnewAtTheEnd,
        &[
            "opening_at_the_end_gives_nothing",
            "a_poll_without_records_leaves_the_position",
            "a_position_is_of_the_next_record",
            "an_unread_reader_stands_where_it_was_opened",
            "bad_input_is_reported_and_passed_over",
            "acknowledging_changes_nothing_that_is_read",
            "other_readers_in_any_order_read_the_same",
            "splits_and_positions_survive_as_json",
            "the_end_is_final",
        ],
    ),
    (Mistake::GoesToTheNewest, &["what_is_appended_follows_the_old_position"]),
    (Mistake::GoesToTheNearest, &["a_lost_position_is_an_error"]),
    (Mistake::SleepsInPoll, &["poll_never_blocks"]),
    (Mistake::IgnoresTheRoom, &["poll_honours_the_room"]),
    (Mistake::ForgetsTheFirstWaker, &["an_idle_reader_calls_the_waker"]),
    (Mistake::NeverWakes, &["growth_wakes_an_idle_reader"]),
    (Mistake::WakesTheFirstWaker, &["growth_wakes_an_idle_reader"]),
    (Mistake::IsAlwaysReady, &["a_reader_with_nothing_is_idle_or_at_its_end", "growth_wakes_an_idle_reader"]),
    (Mistake::GoesOnAfterTheEnd, &["the_end_is_final"]),
    (Mistake::NeverEnds, &["the_end_is_final"]),
    (Mistake::DropsBadInput, &["bad_input_is_reported_and_passed_over"]),
    (Mistake::FailsAtBadInput, &["bad_input_is_reported_and_passed_over"]),
    (Mistake::TellsBadInputTwice, &["bad_input_is_reported_and_passed_over"]),
    (Mistake::GivesNoReason, &["bad_input_is_reported_and_passed_over"]),
    (Mistake::SeeksToTheDecision, &["acknowledging_changes_nothing_that_is_read"]),
    (Mistake::AcknowledgesAtRead, &["j_nothing_is_acknowledged_before_its_decision"]),
    (Mistake::AcknowledgesAllAtADecision, &["j_nothing_is_acknowledged_before_its_decision"]),
    (Mistake::CountsNotices, &["j_a_later_notice_covers_a_lost_one"]),
];

#[test]
fn the_right_source_keeps_every_rule_and_none_is_skipped() {
    let report = check_all(|| wrong(Mistake::None));
    assert!(broken(&report).is_empty() && report.skipped().is_empty(), "{report}");
    assert_eq!(report.outcomes.len(), RULES.len());
}

#[test]
fn every_wrong_source_breaks_the_rule_about_its_mistake() {
    judge(RULES, TABLE, |mistake| check_all(move || wrong(mistake)));
}

#[test]
fn a_source_that_blocks_for_ever_breaks_the_rule_and_does_not_hold_the_test_up() {
    match check("poll_never_blocks", || wrong(Mistake::BlocksInPoll)) {
        Outcome::Broken(violation) => assert!(violation.seen.contains("not returned"), "{violation}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn window_j_is_about_sources() {
    assert!(RULES.iter().any(|rule| rule.window == Some('j')));
}

mod the_right_source {
    staunch_testing::source_conformance!(crate::wrong_source::wrong(crate::wrong_source::Mistake::None));
}
