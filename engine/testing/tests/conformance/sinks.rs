//! Sinks that are wrong on purpose, and the rules that they break.

use crate::wrong_sink::{Mistake, wrong};
use crate::{broken, judge};
use staunch_testing::conformance::sink::{RULES, check, check_all};
use staunch_testing::conformance::Outcome;

/// Each mistake with the rules that it breaks: the first is the one that is about it.
const TABLE: &[(Mistake, &[&str])] = &[
    (Mistake::WritesThrough, &[]),
    (Mistake::CommitsInPrepare, &[]),
    (Mistake::LeavesOrphans, &[]),
    (Mistake::RemovesInSilence, &[]),
    (Mistake::KeepsTheFirstOfAName, &[]),
    (Mistake::DropsOlderCheckpoints, &[]),
    (Mistake::PublishesAtRecovery, &[]),
    (Mistake::RemovesWhatIsListed, &[]),
    (Mistake::ForgetsPreparedInACrash, &[]),
    (Mistake::CommitsAllThatIsPrepared, &[]),
    (Mistake::CommitsByHighestNumber, &[]),
    (Mistake::AllOrNothing, &[]),
    (Mistake::RefusesAfterALostAnswer, &[]),
    (Mistake::DoublesAfterALostAnswer, &[]),
    (Mistake::RefusesWhatIsCommitted, &[]),
    (Mistake::CommitsAgain, &[]),
    (Mistake::CommitsTheLastOnly, &[]),
    (Mistake::HasNoFence, &[]),
    (Mistake::FencesOnlyItsOwnOutput, &[]),
    (Mistake::NumbersByGeneration, &[]),
    (Mistake::LetsAnOlderStartTakeOver, &[]),
    (Mistake::RemovesAfterManyStarts, &[]),
    (Mistake::FencesAtCheck, &[]),
    (Mistake::FencesWhenOpened, &[]),
    (Mistake::IgnoresForeignInstances, &[]),
    (Mistake::PreparesEmptyParts, &[]),
    (Mistake::IgnoresTheLineage, &[]),
    (Mistake::ForgetsTheLineageOfHigherStarts, &[]),
    (Mistake::AbortsWhenDropped, &[]),
    (Mistake::CommitsWhenDropped, &[]),
    (Mistake::IsAtLeastOnce, &[]),
    (Mistake::AnswersOkForLostOutput, &[]),
    (Mistake::RetriesLostOutput, &[]),
    (Mistake::LosesInFewWords, &[]),
    (Mistake::CountsAllEpochs, &[]),
    (Mistake::KeepsRecordsAfterPrepare, &[]),
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
