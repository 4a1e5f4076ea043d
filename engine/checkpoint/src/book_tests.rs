use super::*;
use crate::testing::{manifest, split};

/// A book with the files that its manifests name.
#[derive(Default)]
struct Shop {
    book: Book,
    files: BTreeMap<String, Vec<u8>>,
    checkpoint: u32,
    /// Bytes written as segments, and the most of a manifest's source part.
    written: usize,
    longest: usize,
}

fn at(n: usize, finished: bool) -> SplitPart {
    SplitPart { finished, ..split(&format!("file-{n:06}.csv"), 100) }
}

impl Shop {
    /// A checkpoint in which these are reported is decided; then the book is read back from what is stored.
    fn decide(&mut self, splits: &[SplitPart]) {
        self.checkpoint += 1;
        let checkpoint = CheckpointId(self.checkpoint);
        let by_id = splits.iter().map(|split| (split.id.as_str(), split)).collect();
        let reported: Reported<'_> = [("in", by_id)].into();
        let draft = self.book.draft(["in"].into_iter(), &reported, checkpoint, Generation(1));
        self.written += draft.files.iter().map(|file| file.bytes.len()).sum::<usize>();
        self.files.extend(draft.files.into_iter().map(|file| (file.name, file.bytes)));
        self.book = draft.book;
        let part = self.book.sources()["in"].clone();
        self.longest = self.longest.max(serde_json::to_vec_pretty(&part).unwrap().len());
        // What no manifest names any more is deleted.
        self.files.retain(|name, _| part.segments.iter().any(|segment| segment.name == *name));
        // Reading everything back each time would take longer than all the rest.
        if self.checkpoint < 50 || self.checkpoint.is_multiple_of(50) {
            assert_eq!(self.restored(), self.book.splits("in"), "checkpoint {checkpoint}");
        }
    }

    fn restored(&self) -> Vec<SplitPart> {
        let mut stored = manifest(self.checkpoint, 1, &[]);
        stored.sources = self.book.sources();
        let read = |file: &SegmentRef| Segment::decode(file, &self.files[&file.name]).unwrap();
        let segments = |part: &SourcePart| part.segments.iter().map(read).collect();
        let segments = stored.sources.iter().map(|(name, part)| (name.clone(), segments(part))).collect();
        Book::restore(&stored, segments).splits("in")
    }

    fn forget(&mut self, splits: impl Iterator<Item = usize>) {
        let ids: Vec<String> = splits.map(|n| at(n, true).id).collect();
        self.book.forget("in", &ids, CheckpointId(self.checkpoint));
    }
}

#[test]
fn a_manifest_stays_short_with_20_000_finished_splits_and_they_are_written_a_few_times_each() {
    const SPLITS: usize = 20_000;
    let mut shop = Shop::default();
    for first in (0..SPLITS).step_by(100) {
        let mut some: Vec<SplitPart> = (first..first + 100).map(|n| at(n, true)).collect();
        some.push(at(first + 100, false));
        shop.decide(&some);
    }
    assert_eq!(shop.book.splits("in").len(), SPLITS + 1);
    assert!(shop.longest < 40_000, "{} bytes", shop.longest);
    let once = serde_json::to_vec(&at(0, true)).unwrap().len() * SPLITS;
    assert!(shop.written < 12 * once, "{} bytes written for {once}", shop.written);
}

#[test]
fn splits_that_come_and_go_leave_nothing_behind() {
    let mut shop = Shop::default();
    for round in 0..6 {
        let these = round * 500..(round + 1) * 500;
        shop.decide(&these.clone().map(|n| SplitPart { position: None, ..at(n, false) }).collect::<Vec<_>>());
        for first in these.clone().step_by(20) {
            shop.decide(&(first..first + 20).map(|n| at(n, true)).collect::<Vec<_>>());
        }
        shop.forget(these.clone().take(313));
        shop.decide(&[]);
        assert_eq!(shop.book.splits("in").len(), 500 - 313);
        shop.forget(these.skip(313));
        shop.decide(&[]);
        let part = &shop.book.sources()["in"];
        assert_eq!((part.splits.len(), part.forgotten.len(), part.segments.len()), (0, 0, 0));
        assert!(shop.files.is_empty());
    }
    assert_eq!(shop.book.max_event_time_ms("in"), None);
}

#[test]
fn a_split_that_moves_again_and_one_that_comes_again_override_what_is_stored() {
    let mut shop = Shop::default();
    shop.decide(&(0..200).map(|n| at(n, true)).collect::<Vec<_>>());
    assert_eq!(shop.book.sources()["in"].segments.len(), 1);
    shop.forget([7].into_iter());
    shop.decide(&[]);
    assert!(!shop.book.splits("in").contains(&at(7, true)));
    let again = SplitPart { position: None, ..at(7, false) };
    shop.decide(std::slice::from_ref(&again));
    let known = shop.book.splits("in");
    assert!(known.contains(&again) && known.len() == 200);
}

#[test]
fn a_split_that_is_quiet_for_long_is_stored_and_moves_again_when_it_changes() {
    let mut shop = Shop::default();
    let open: Vec<SplitPart> = (0..200).map(|n| at(n, false)).collect();
    shop.decide(&open);
    assert_eq!(shop.book.sources()["in"].splits.len(), 200);
    (0..QUIET_CHECKPOINTS).for_each(|_| shop.decide(&[]));
    assert!(shop.book.sources()["in"].splits.is_empty());
    let moved = SplitPart { position: Some(200.into()), ..at(3, false) };
    shop.decide(std::slice::from_ref(&moved));
    assert_eq!(shop.book.sources()["in"].splits, [moved]);
    assert_eq!(shop.book.splits("in").len(), 200);
}

#[test]
fn every_flipped_bit_and_every_missing_end_of_a_segment_is_an_error_that_names_it() {
    let mut shop = Shop::default();
    shop.decide(&(0..WORTH_A_SEGMENT).map(|n| at(n, true)).collect::<Vec<_>>());
    let file = shop.book.sources()["in"].segments[0].clone();
    let bytes = shop.files[&file.name].clone();
    assert!(Segment::decode(&file, &bytes).is_ok());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(Segment::decode(&file, &flipped).unwrap_err().to_string().contains(&file.name));
        assert!(Segment::decode(&file, &bytes[..at]).is_err());
    }
}
