//! Sources that are wrong on purpose, and the rules that they break.

use crate::wrong_source::{Mistake, wrong};
use crate::{broken, judge};
use staunch_testing::conformance::Outcome;
use staunch_testing::conformance::source::{RULES, check, check_all};

/// Each mistake with the rules that it breaks: the first is the one that is about it.
const TABLE: &[(Mistake, &[&str])] = &[
    (Mistake::NamesByOrderOfAHashMap, &[]),
    (Mistake::NamesByPlaceInTheListing, &[]),
    (Mistake::WritesHalfThePosition, &[]),
    (Mistake::SwapsRecordsWhenThereIsRoom, &[]),
    (Mistake::SharesACursor, &[]),
    (Mistake::PositionOfTheLastRecord, &[]),
    (Mistake::PositionABatchAhead, &[]),
    (Mistake::StandsAtTheBeginningUntilPolled, &[]),
    (Mistake::MovesWithoutRoom, &[]),
    (Mistake::BeginsAnewAtTheEnd, &[]),
    (Mistake::GoesToTheNewest, &[]),
    (Mistake::GoesToTheNearest, &[]),
    (Mistake::SleepsInPoll, &[]),
    (Mistake::IgnoresTheRoom, &[]),
    (Mistake::ForgetsTheFirstWaker, &[]),
    (Mistake::NeverWakes, &[]),
    (Mistake::WakesTheFirstWaker, &[]),
    (Mistake::IsAlwaysReady, &[]),
    (Mistake::GoesOnAfterTheEnd, &[]),
    (Mistake::NeverEnds, &[]),
    (Mistake::DropsBadInput, &[]),
    (Mistake::FailsAtBadInput, &[]),
    (Mistake::TellsBadInputTwice, &[]),
    (Mistake::GivesNoReason, &[]),
    (Mistake::SeeksToTheDecision, &[]),
    (Mistake::AcknowledgesAtRead, &[]),
    (Mistake::AcknowledgesAllAtADecision, &[]),
    (Mistake::CountsNotices, &[]),
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
