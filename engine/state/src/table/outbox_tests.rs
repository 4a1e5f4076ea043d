use super::*;
use proptest::prelude::*;
use std::os::fd::OwnedFd;

/// Entries of one byte, which is their group.
fn section(group: u16, length: usize) -> Bytes {
    Bytes { bytes: vec![group as u8; length], entries: length as u64 }
}

fn read_back(bytes: &[u8]) -> Result<&[u8], Problem> {
    bytes.get(1..).ok_or(Problem::Differs)
}

fn put(outbox: &mut Outbox, group: u16, length: usize, scratch: &Path) {
    let at = (usize::from(group), group);
    outbox.take_from(at, &mut section(group, length), true, scratch, read_back).unwrap();
}

/// All bytes of a freeze, which are their groups.
fn contents(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes().unwrap().into_owned()).collect()
}

/// Waits until the thread has written all that it was sent.
fn settle(pieces: &[Piece]) {
    let began = Instant::now();
    let is_open = |piece: &Piece| match &piece.place {
        Place::Spooled(spool, number) => spool.lock().done <= *number,
        Place::Memory(_) => false,
    };
    while pieces.iter().any(is_open) {
        assert!(began.elapsed() < Duration::from_secs(60), "the thread writes nothing");
        std::thread::yield_now();
    }
}

/// An outbox whose scratch file is this one.
fn with_file(file: File, limit: usize) -> Outbox {
    let mut outbox = Outbox::new(limit);
    outbox.spool = Some(Spool::writing(PathBuf::from("scratch"), file).unwrap());
    outbox.begin(4);
    outbox
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn what_goes_in_comes_out_by_groups_and_little_of_it_stays_in_memory(
        limit in prop_oneof![Just(0usize), 1..400usize, Just(usize::MAX / 8)],
        freezes in prop::collection::vec(prop::collection::vec((0..6u16, 0..90usize), 0..60), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::new(limit);
        for sections in freezes {
            outbox.begin(6);
            for (group, length) in &sections {
                while outbox.is_full(folder.path()) {}
                prop_assert!(outbox.in_memory <= 4 * limit);
                put(&mut outbox, *group, *length, folder.path());
            }
            let pieces = outbox.finish(read_back).unwrap();
            let mut expected: Vec<u8> =
                sections.iter().flat_map(|(group, length)| vec![*group as u8; *length]).collect();
            expected.sort_unstable();
            prop_assert_eq!(contents(&pieces), expected.clone());
            prop_assert_eq!(contents(&pieces), expected, "they can be read again");
            let entries: u64 = pieces.iter().map(|piece| piece.entries).sum();
            prop_assert_eq!(entries, pieces.iter().map(|piece| piece.length).sum::<u64>());
        }
        prop_assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the scratch file has no name");
    }
}

#[test]
fn a_scratch_file_that_changed_is_an_error_and_never_wrong_data() {
    let folder = tempfile::tempdir().unwrap();
    for (damage, length) in [("another byte", 100), ("an end too early", 60)] {
        let path = folder.path().join(damage);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut outbox = with_file(file, 0);
        put(&mut outbox, 0, 40, folder.path());
        put(&mut outbox, 1, 60, folder.path());
        let pieces = outbox.finish(read_back).unwrap();
        settle(&pieces);
        assert_eq!(contents(&pieces).len(), 100);
        let other = File::options().write(true).open(&path).unwrap();
        other.write_all_at(&[7], 50).unwrap();
        other.set_len(length).unwrap();
        assert!(pieces[0].bytes().is_ok());
        let error = pieces[1].bytes().unwrap_err().to_string();
        assert!(error.contains("scratch"), "{damage}: {error}");
    }
}

#[test]
fn a_freeze_waits_for_a_disk_that_stands_still_and_loses_nothing_if_it_fails_after_all() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody reads, so that writing stands still, and then fails.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut outbox = with_file(File::from(OwnedFd::from(writer)), 64 << 10);
    // More than the pipe and the queue to it take.
    const PIECES: u16 = 60;
    for piece in 0..PIECES {
        put(&mut outbox, piece % 4, 32 << 10, folder.path());
    }
    assert!(outbox.is_full(folder.path()));
    assert!(outbox.is_full(folder.path()));
    drop(reader);
    while outbox.is_full(folder.path()) {}
    let pieces = outbox.finish(read_back).unwrap();
    // What the pipe took is lost with it; of a scratch file it could be read. All else is in memory.
    let there = pieces.iter().filter_map(|piece| piece.bytes().ok()).count();
    assert!(there >= usize::from(PIECES) - 2, "{there} of {PIECES}");
}

#[test]
fn a_disk_that_stands_still_for_good_costs_memory_but_no_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut outbox = with_file(File::from(OwnedFd::from(writer)), 1 << 10);
    outbox.patience = Duration::from_millis(20);
    for _ in 0..100 {
        while outbox.is_full(folder.path()) {}
        put(&mut outbox, 1, 32 << 10, folder.path());
    }
    assert!(outbox.in_memory > 2 << 20, "{}", outbox.in_memory);
}

#[test]
fn without_a_place_for_a_scratch_file_all_stays_in_memory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut outbox = Outbox::new(10);
    outbox.begin(4);
    for group in [2, 1, 3] {
        assert!(!outbox.is_full(&file.path().join("folder")));
        put(&mut outbox, group, 100, &file.path().join("folder"));
    }
    let pieces = outbox.finish(read_back).unwrap();
    assert!(pieces.iter().all(|piece| !piece.is_spooled()));
    assert_eq!(contents(&pieces), [[1; 100], [2; 100], [3; 100]].concat());
}

#[test]
fn every_freeze_reads_something_back_wherever_its_entries_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(1 << 10);
    for freeze in 0..6 {
        let read = std::cell::Cell::new(0);
        outbox.begin(4);
        // The first group alone has entries; later freezes begin to look at another one.
        let look = |bytes: &[u8]| read.set(read.get() + bytes.len().min(1));
        let mut section = section(9, 10);
        outbox
            .take_from((0, 9), &mut section, true, folder.path(), |b| {
                look(b);
                read_back(b)
            })
            .unwrap();
        assert_eq!(
            outbox
                .finish(|b| {
                    look(b);
                    read_back(b)
                })
                .unwrap()
                .len(),
            1
        );
        assert_eq!(read.get(), 10, "freeze {freeze}");
    }
}

#[test]
fn what_waits_for_a_disk_that_hangs_is_read_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut outbox = with_file(File::from(OwnedFd::from(writer)), 0);
    // More than a pipe takes, and nobody reads it: the thread is held up in the first piece for good.
    for group in 0..4 {
        put(&mut outbox, group, 1 << 20, folder.path());
    }
    let pieces = outbox.finish(read_back).unwrap();
    assert!(pieces.iter().all(Piece::is_spooled));
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.bytes().unwrap().len()).collect();
    assert_eq!(lengths, [1 << 20; 4]);
}
