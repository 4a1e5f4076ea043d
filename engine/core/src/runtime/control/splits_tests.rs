use super::*;

fn found(ids: &[&str], description: u32) -> Found {
    ids.iter().map(|id| ((*id).to_owned(), Value::from(description))).collect()
}

fn ids(splits: Vec<Dealt>) -> Vec<String> {
    splits.into_iter().map(|dealt| dealt.part.id).collect()
}

fn part(id: &str, description: u32, finished: bool) -> SplitPart {
    SplitPart {
        id: id.into(),
        split: Value::from(description),
        position: Some(Value::from(9)),
        finished,
        max_event_time_ms: None,
    }
}

fn nothing(new: usize) -> Listed {
    Listed { new, forgotten: Vec::new() }
}

#[test]
fn splits_are_dealt_evenly_and_a_known_one_is_never_dealt_again() {
    let hub = SplitHub::new(2, Vec::new(), None);
    assert_eq!(hub.listed(found(&["c", "a", "b"], 1), false), nothing(3));
    assert_eq!(hub.listed(found(&["a", "b", "c"], 1), false), nothing(0));
    assert_eq!(ids(hub.take(0)), ["a", "c"]);
    assert_eq!(ids(hub.take(1)), ["b"]);
    assert!(hub.take(0).is_empty());
}

#[test]
fn another_split_of_the_name_of_a_finished_one_goes_to_the_instance_that_read_it() {
    let hub = SplitHub::new(2, Vec::new(), None);
    hub.listed(found(&["a", "b"], 1), false);
    assert_eq!((ids(hub.take(0)), ids(hub.take(1))), (vec!["a".into()], vec!["b".into()]));
    assert_eq!(hub.listed(found(&["a", "b"], 2), false), nothing(0), "they are being read");
    hub.finished("b");
    assert_eq!(hub.listed(found(&["a", "b"], 1), false), nothing(0), "it is the same one");
    assert_eq!(hub.listed(found(&["a", "b"], 2), false), nothing(1));
    assert_eq!((ids(hub.take(0)), ids(hub.take(1))), (vec![], vec!["b".into()]));
}

#[test]
fn only_a_split_whose_end_is_decided_is_forgotten_and_it_is_new_when_it_comes_again() {
    let hub = SplitHub::new(1, Vec::new(), None);
    hub.listed(found(&["a", "b"], 1), true);
    hub.take(0);
    assert_eq!(hub.listed(found(&["b"], 1), true), nothing(0));
    hub.finished("a");
    assert_eq!(hub.listed(found(&["b"], 1), true), nothing(0));
    hub.ended(&[part("a", 2, true)]);
    assert_eq!(hub.listed(found(&["b"], 1), true), nothing(0), "that was another one");
    hub.ended(&[part("a", 1, true)]);
    assert_eq!(hub.listed(found(&["b"], 1), false), nothing(0));
    assert_eq!(hub.listed(found(&["b"], 1), true), Listed { new: 0, forgotten: vec!["a".into()] });
    assert_eq!(hub.listed(found(&["a", "b"], 1), true), nothing(1));
    assert_eq!(ids(hub.take(0)), ["a"]);
}

#[test]
fn finished_splits_are_dealt_as_the_source_says_when_it_looks_at_them_again() {
    let parts = ["a", "b", "c", "d"].map(|id| part(id, 1, id != "d"));
    let hub = SplitHub::new(2, parts.to_vec(), None);
    let listing = found(&["a", "b", "c", "d", "e"], 2);
    let finished = hub.finished_of(&listing);
    assert_eq!(finished.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let said = [Revisit::Finished, Revisit::GoesOn, Revisit::New];
    hub.revise(finished.into_iter().zip(said).map(|((id, split, _), said)| (id, split, said)).collect());
    hub.deal_restored();
    assert_eq!(hub.listed(listing, false), nothing(1));
    let dealt = hub.take(0).into_iter().chain(hub.take(1));
    let mut dealt: Vec<Dealt> = dealt.collect();
    dealt.sort_by(|one, other| one.part.id.cmp(&other.part.id));
    let dealt: Vec<_> =
        dealt.iter().map(|d| (d.part.id.as_str(), d.is_known, d.part.position.is_some())).collect();
    assert_eq!(dealt, [("b", false, true), ("c", false, false), ("d", true, true), ("e", false, false)]);
}
