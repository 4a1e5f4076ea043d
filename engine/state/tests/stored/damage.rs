//! Damage to every kind of stored file: at 200 random places each a flipped bit and a cut, the loss of the
//! file, and every other file of its kind in its place. Each is an error that names the file, before an
//! entry of it is used.

use super::*;
use std::collections::BTreeMap;

const PLACES: usize = 200;

/// The same small pseudo-random numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

/// What a file is, as finely as readers tell them apart.
fn kind(file: &FileRef) -> &'static str {
    let is = |part: &str| file.name.contains(part);
    match file.kind {
        FileKind::Base => "base",
        FileKind::Delta if is("-m1.delta") => "merged delta",
        FileKind::Delta => "delta",
        FileKind::Spill if is(".sst") => "RocksDB table",
        FileKind::Spill if is("MANIFEST") => "RocksDB manifest",
        FileKind::Spill if is("CURRENT") => "RocksDB current",
        FileKind::Spill => "RocksDB options",
    }
}

/// A chain in memory: a base, merged deltas, deltas.
fn chained(folder: &Path, storage: Arc<dyn Storage>) -> Shard {
    let mut table = Words::new(config(folder, usize::MAX));
    let persister = writing(storage, 1, None);
    write(&mut table, 0..3000, "first");
    checkpoint(&mut table, &persister, 1, FreezeMode::Base);
    let mut last = None;
    for id in 2..36 {
        write(&mut table, u64::from(id)..u64::from(id) + 20, "later");
        last = Some(checkpoint(&mut table, &persister, id, FreezeMode::Delta));
    }
    last.unwrap().shard
}

/// Puts `bad` in the place of the file and expects the restore to refuse it.
fn refuses(storage: &InMemoryStorage, scratch: &Path, shard: &Shard, file: &FileRef, what: &str) {
    match restored(scratch, storage, shard) {
        Ok(_) => panic!("{what} of {} went unnoticed", file.name),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&file.name), "{what} of {}: {text}", file.name);
            assert!(!matches!(error, StateError::Internal { .. }), "{text}");
        }
    }
}

/// Damages the shard's files, those of RocksDB or the others; returns how often, by kind.
fn damage(
    storage: &InMemoryStorage,
    scratch: &Path,
    shard: &Shard,
    spill: bool,
) -> BTreeMap<&'static str, usize> {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut tried = BTreeMap::new();
    let mut of_kind: BTreeMap<&str, Vec<&FileRef>> = BTreeMap::new();
    for file in shard.files.iter().filter(|file| (file.kind == FileKind::Spill) == spill) {
        of_kind.entry(kind(file)).or_default().push(file);
    }
    for (kind, files) in &of_kind {
        let count = tried.entry(*kind).or_default();
        let mut refuse = |file: &FileRef, bad: &[u8], what: &str| {
            storage.put(&file.name, bad).unwrap();
            refuses(storage, scratch, shard, file, what);
            *count += 1;
        };
        for place in 0..PLACES {
            let file = files[place % files.len()];
            let good = storage.get(&file.name).unwrap();
            let (at, bit) = (dice.below(good.len()), dice.below(8));
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            refuse(file, &flipped, &format!("a flip of bit {bit} at {at}"));
            refuse(file, &good[..at], &format!("a cut at {at}"));
            storage.put(&file.name, &good).unwrap();
        }
        for file in files {
            let good = storage.get(&file.name).unwrap();
            for other in files.iter().filter(|other| other.name != file.name) {
                refuse(file, &storage.get(&other.name).unwrap(), &format!("{} in the place", other.name));
            }
            storage.delete(&file.name).unwrap();
            refuses(storage, scratch, shard, file, "the loss");
            storage.put(&file.name, &good).unwrap();
        }
    }
    tried
}

#[test]
fn damage_to_any_stored_file_is_an_error_and_never_wrong_data() {
    let folders = tempfile::tempdir().unwrap();
    let scratch = folders.path().join("scratch");
    let storage = InMemoryStorage::new();
    let shard = chained(&folders.path().join("one"), Arc::new(storage.clone()));
    restored(&scratch, &storage, &shard).unwrap();
    let mut tried = damage(&storage, &scratch, &shard, false);
    restored(&scratch, &storage, &shard).unwrap();

    let storage = InMemoryStorage::new();
    let (table, persister, parts) = spilled(&folders.path().join("two"), Arc::new(storage.clone()));
    drop((table, persister));
    let shard = &parts[2].shard;
    check(&mut restored(&scratch, &storage, shard).unwrap());
    tried.extend(damage(&storage, &scratch, shard, true));
    check(&mut restored(&scratch, &storage, shard).unwrap());
    println!("damaged and refused: {tried:?}");
    let kinds: Vec<&str> = tried.keys().copied().collect();
    let all = [
        "RocksDB current",
        "RocksDB manifest",
        "RocksDB options",
        "RocksDB table",
        "base",
        "delta",
        "merged delta",
    ];
    assert_eq!(kinds, all);
    assert!(tried.values().all(|count| *count >= 2 * PLACES), "{tried:?}");
}

/// A file of an older checkpoint under the name of a newer one: whole, of the same step and worker, with
/// good checksums of its own. Only the manifest knows that it is another.
#[test]
fn an_older_file_under_the_name_of_a_newer_one_is_refused() {
    let folders = tempfile::tempdir().unwrap();
    let storage = InMemoryStorage::new();
    let (_table, _persister, parts) = spilled(&folders.path().join("one"), Arc::new(storage.clone()));
    let base = |part: &PersistedShard| {
        part.shard.files.iter().find(|file| file.kind == FileKind::Base).unwrap().clone()
    };
    let (old, new) = (base(&parts[0]), base(&parts[1]));
    assert_ne!(old.name, new.name);
    storage.put(&new.name, &storage.get(&old.name).unwrap()).unwrap();
    refuses(&storage, &folders.path().join("two"), &parts[1].shard, &new, "an older base");
}
