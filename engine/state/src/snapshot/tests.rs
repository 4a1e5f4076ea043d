use super::*;
use crate::memory::InMemoryStorage;
use crate::storage::Storage;
use staunch_checkpoint::{FileKind, FileRef};

const NAME: &str = "state/1/7-g2.delta";

fn head() -> Head {
    Head {
        job: "job".to_owned(),
        lineage: "life".to_owned(),
        step: "counts".to_owned(),
        worker: 1,
        checkpoint: 7,
        generation: 2,
        groups: Groups::new(8),
        owned: ranges(&[0, 1, 2, 5]),
    }
}

/// A file with sections of `bytes` each for the groups 0, 2 and 5.
fn file(storage: &InMemoryStorage, bytes: usize) -> FileRef {
    let scratch = std::env::temp_dir();
    let output = Output::sized(3 * bytes as u64, &scratch).unwrap();
    let mut bundle = Bundle::new(output);
    let mut writer = bundle.begin(&head()).unwrap();
    for group in [0, 2, 5] {
        let half = vec![group as u8 + 1; bytes / 2];
        writer.section(group, 3, &half).unwrap();
        writer.section(group, 4, &half).unwrap();
    }
    let extent = writer.finish().unwrap();
    bundle.put(storage, NAME).unwrap();
    extent.in_file(NAME, FileKind::Delta)
}

fn read(
    storage: &dyn Storage,
    file: &FileRef,
    wanted: &[u16],
) -> Result<Vec<(u16, Vec<u8>)>, crate::StateError> {
    let mut found = Vec::new();
    Snapshot::open(storage, file)?.read(
        |group| wanted.contains(&group),
        |section, bytes| {
            found.push((section.group, bytes.to_vec()));
            Ok(())
        },
    )?;
    Ok(found)
}

#[test]
fn small_and_large_files_read_back_what_was_written() {
    let storage = InMemoryStorage::new();
    for bytes in [2, 1000, 3 << 20, 7 << 20] {
        let file = file(&storage, bytes);
        assert_eq!(file.bytes, storage.get(&file.name).unwrap().len() as u64);
        assert_eq!(file.crc32c, crc32c::crc32c(&storage.get(&file.name).unwrap()));
        let snapshot = Snapshot::open(&storage, &file).unwrap();
        assert_eq!(snapshot.head(), &head());
        assert!(snapshot.sections().iter().all(|section| section.entries == 7));
        let found = read(&storage, &file, &[0, 5, 7]).unwrap();
        assert_eq!(found, vec![(0, vec![1; bytes]), (5, vec![6; bytes])]);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_small_file_is_an_error() {
    let storage = InMemoryStorage::new();
    let file = file(&storage, 40);
    let good = storage.get(&file.name).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            storage.put(&file.name, &bad).unwrap();
            let error = read(&storage, &file, &[0, 2, 5]).unwrap_err().to_string();
            assert!(error.starts_with(&file.name) && error.contains("--from ID"), "{at}: {error}");
        }
        storage.put(&file.name, &good[..at]).unwrap();
        let error = read(&storage, &file, &[0, 2, 5]).unwrap_err().to_string();
        assert!(error.contains(&file.name) && error.contains("byte"), "cut at {at}: {error}");
    }
}

#[test]
fn a_large_file_is_read_by_ranges_and_only_damage_to_what_is_read_matters() {
    let storage = InMemoryStorage::new();
    let file = file(&storage, 5 << 20);
    let good = storage.get(&file.name).unwrap();
    let section = |group| {
        let snapshot = Snapshot::open(&storage, &file).unwrap();
        snapshot.sections().iter().find(|section| section.group == group).copied().unwrap()
    };
    let (second, third) = (section(2), section(5));
    let mut bad = good.clone();
    bad[second.offset as usize + 1_000_000] ^= 4;
    storage.put(&file.name, &bad).unwrap();
    assert_eq!(read(&storage, &file, &[0, 5]).unwrap().len(), 2);
    let error = read(&storage, &file, &[0, 2, 5]).unwrap_err().to_string();
    assert!(error.contains(&format!("byte {}", second.offset)), "{error}");
    for cut in [10, 100, third.offset as usize + 5, good.len() - 1] {
        storage.put(&file.name, &good[..cut]).unwrap();
        assert!(read(&storage, &file, &[0]).is_err(), "cut at {cut}");
    }
    let structure = (0..head_end(&good)).chain(third.offset as usize + third.bytes as usize..good.len());
    for at in structure {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        storage.put(&file.name, &bad).unwrap();
        assert!(read(&storage, &file, &[0]).is_err(), "flip at {at}");
    }
}

fn head_end(file: &[u8]) -> usize {
    HEAD_START as usize + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize + 4
}

#[test]
fn a_file_of_another_checkpoint_is_not_taken_for_the_listed_one() {
    let storage = InMemoryStorage::new();
    let listed = file(&storage, 40);
    let mut other = head();
    other.checkpoint = 8;
    let output = Output::sized(0, &std::env::temp_dir()).unwrap();
    let mut bundle = Bundle::new(output);
    let extent = bundle.begin(&other).unwrap().finish().unwrap();
    bundle.put(&storage, NAME).unwrap();
    let swapped = extent.in_file(NAME, FileKind::Delta);
    let same_length = FileRef { bytes: swapped.bytes, ..listed };
    let error = Snapshot::open(&storage, &same_length).err().unwrap().to_string();
    assert!(error.contains("not the file that the manifest lists"), "{error}");
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let storage = InMemoryStorage::new();
    let file = file(&storage, 40);
    let mut bytes = storage.get(&file.name).unwrap();
    bytes[8] = 9;
    storage.put(&file.name, &bytes).unwrap();
    let error = Snapshot::open(&storage, &file).err().unwrap().to_string();
    assert!(error.contains("format 9, this build reads up to 2"), "{error}");
}

#[test]
fn the_format_of_before_the_first_release_is_refused_by_name_with_what_to_do() {
    let storage = InMemoryStorage::new();
    let file = file(&storage, 40);
    let mut bytes = storage.get(&file.name).unwrap();
    bytes[8] = 1;
    storage.put(&file.name, &bytes).unwrap();
    let error = Snapshot::open(&storage, &file).err().unwrap().to_string();
    assert!(
        error.contains("format 1, this build reads format 2 alone. Run the build that wrote it"),
        "{error}"
    );
}

#[test]
fn snapshots_that_share_a_file_are_read_apart_and_damage_to_one_is_of_no_matter_to_the_other() {
    let storage = InMemoryStorage::new();
    let mut bundle = Bundle::new(Output::sized(0, &std::env::temp_dir()).unwrap());
    let mut files = Vec::new();
    for state in 0..3_u8 {
        let head = Head { step: format!("state {state}"), ..head() };
        let mut writer = bundle.begin(&head).unwrap();
        writer.section(1, 2, &[state; 50]).unwrap();
        files.push(writer.finish().unwrap().in_file(NAME, FileKind::Delta));
    }
    bundle.put(&storage, NAME).unwrap();
    let good = storage.get(NAME).unwrap();
    assert_eq!(files.iter().map(|file| file.bytes).sum::<u64>(), good.len() as u64);
    for (state, file) in files.iter().enumerate() {
        assert_eq!(Snapshot::open(&storage, file).unwrap().head().step, format!("state {state}"));
        assert_eq!(read(&storage, file, &[1]).unwrap(), [(1, vec![state as u8; 50])]);
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        storage.put(NAME, &bad).unwrap();
        for file in &files {
            let is_in = (file.offset..file.offset + file.bytes).contains(&(at as u64));
            assert_eq!(read(&storage, file, &[1]).is_err(), is_in, "byte {at}");
        }
    }
    // One state's snapshot is not taken for another's.
    let wrong = FileRef { offset: files[0].offset, bytes: files[0].bytes, ..files[1].clone() };
    storage.put(NAME, &good).unwrap();
    assert!(Snapshot::open(&storage, &wrong).is_err());
}

#[test]
fn group_numbers_become_ranges() {
    assert_eq!(ranges(&[]), vec![]);
    assert_eq!(ranges(&[0, 1, 2, 5, 7, 8, u16::MAX]), vec![(0, 2), (5, 5), (7, 8), (u16::MAX, u16::MAX)]);
}
