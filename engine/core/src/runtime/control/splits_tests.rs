use super::*;

fn found(ids: &[&str], description: u32) -> Found {
    ids.iter().map(|id| ((*id).to_owned(), Value::from(description))).collect()
}

/// Splits and whose they are.
fn owners(splits: &[Dealt]) -> Vec<(&str, u32)> {
    splits.iter().map(|dealt| (dealt.part.id.as_str(), dealt.instance)).collect()
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

/// What a listing brings if nothing is to be forgotten.
fn listed(hub: &SplitHub, found: Found, forgets: bool) -> Vec<Dealt> {
    let Listed { dealt, forgotten } = hub.listed(found, forgets);
    assert_eq!(forgotten, Vec::<String>::new());
    dealt
}

#[test]
fn splits_are_dealt_evenly_and_a_known_one_is_never_dealt_again() {
    let hub = SplitHub::new(2, Vec::new());
    let dealt = listed(&hub, found(&["c", "a", "b"], 1), false);
    assert_eq!(owners(&dealt), [("a", 0), ("b", 1), ("c", 0)]);
    assert_eq!(listed(&hub, found(&["a", "b", "c"], 1), false), []);
}

#[test]
fn another_split_of_the_name_of_a_finished_one_goes_to_the_instance_that_read_it() {
    let hub = SplitHub::new(2, Vec::new());
    assert_eq!(owners(&listed(&hub, found(&["a", "b"], 1), false)), [("a", 0), ("b", 1)]);
    assert_eq!(listed(&hub, found(&["a", "b"], 2), false), [], "they are being read");
    hub.finished("b");
    assert_eq!(listed(&hub, found(&["a", "b"], 1), false), [], "it is the same one");
    assert_eq!(owners(&listed(&hub, found(&["a", "b"], 2), false)), [("b", 1)]);
}

#[test]
fn only_a_split_whose_end_is_decided_is_forgotten_and_it_is_new_when_it_comes_again() {
    let hub = SplitHub::new(1, Vec::new());
    assert_eq!(listed(&hub, found(&["a", "b"], 1), true).len(), 2);
    assert_eq!(listed(&hub, found(&["b"], 1), true), []);
    hub.finished("a");
    assert_eq!(listed(&hub, found(&["b"], 1), true), []);
    hub.ended(&[part("a", 2, true)]);
    assert_eq!(listed(&hub, found(&["b"], 1), true), [], "that was another one");
    hub.ended(&[part("a", 1, true)]);
    assert_eq!(listed(&hub, found(&["b"], 1), false), []);
    let Listed { dealt, forgotten } = hub.listed(found(&["b"], 1), true);
    assert_eq!((dealt.len(), forgotten), (0, vec!["a".to_owned()]));
    assert_eq!(owners(&listed(&hub, found(&["a", "b"], 1), true)), [("a", 0)]);
}

#[test]
fn finished_splits_are_dealt_as_the_source_says_when_it_looks_at_them_again() {
    let parts = ["a", "b", "c", "d"].map(|id| part(id, 1, id != "d"));
    let hub = SplitHub::new(2, parts.to_vec());
    let listing = found(&["a", "b", "c", "d", "e"], 2);
    let finished = hub.finished_of(&listing);
    assert_eq!(finished.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let said = [Revisit::Finished, Revisit::GoesOn, Revisit::New];
    hub.revise(finished.into_iter().zip(said).map(|((id, split, _), said)| (id, split, said)).collect());
    let mut dealt = hub.deal_restored();
    let new = listed(&hub, listing, false);
    assert_eq!(new.len(), 1);
    dealt.extend(new);
    let dealt: Vec<_> =
        dealt.iter().map(|d| (d.part.id.as_str(), d.is_known, d.part.position.is_some())).collect();
    assert_eq!(dealt, [("b", false, true), ("c", false, false), ("d", true, true), ("e", false, false)]);
}
