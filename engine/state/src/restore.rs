//! Filling a table from the shards of a checkpoint, written by any number of workers.

use crate::error::StateError;
use crate::persist::{checksum, local_name};
use crate::snapshot::{Head, Snapshot, ranges};
use crate::storage::{Storage, StorageError};
use crate::table::{AnyTable, wipe};
use staunch_checkpoint::{FileKind, FileRef, Shard};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a restore did.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RestoreStats {
    /// Entries loaded, deletions and overridden ones included; not those of an adopted RocksDB.
    pub entries: u64,
    /// Files read, in part or whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// The chain that the table continues: for
    /// [`Persister::open`](crate::Persister::open). `None` when the groups were owned differently
    /// (or there was no checkpoint): then the chain starts anew with a base. Empty when the state was empty.
    pub continues: Option<Vec<FileRef>>,
}

/// Loads the groups that `table` owns from the shards of a step, all of them: those of other groups
/// are recognised and left alone. The table must be new. Every file, or part of a file, is verified
/// before any record of it is used. Types that could not be stored again are refused first: a table comes by here
/// before it gets its first value.
///
/// # Errors
/// A type cannot be stored, a file is damaged, foreign, missing or of a newer format, an entry does not decode or does not
/// belong to its group, or a local disk failed. The table is then unusable.
pub fn restore_table(
    table: &mut dyn AnyTable,
    storage: &dyn Storage,
    shards: &[Shard],
) -> Result<RestoreStats, StateError> {
    table.check_types()?;
    restore(table, storage, shards).map_err(|error| match error {
        StateError::Storage(StorageError::NotFound { name, place }) => {
            StateError::Missing { file: name, place }
        }
        other => other,
    })
}

fn restore(
    table: &mut dyn AnyTable,
    storage: &dyn Storage,
    shards: &[Shard],
) -> Result<RestoreStats, StateError> {
    let started = Instant::now();
    let mut stats = RestoreStats::default();
    let owned = ranges(table.owned());
    let mut mine = Vec::new();
    let mut holder: BTreeMap<u16, u32> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| !shard.files.is_empty()) {
        let head = head_of(table, storage, shard)?;
        let wanted = wanted_groups(table, &head);
        for group in &wanted {
            if let Some(other) = holder.insert(*group, shard.worker) {
                let problem = format!("key group {group} is in the shard of worker {other} too");
                return Err(StateError::Foreign { file: shard.files[0].name.clone(), problem });
            }
        }
        if !wanted.is_empty() {
            mine.push((shard, head, wanted));
        }
    }
    if mine.is_empty() && !shards.is_empty() {
        // All that this table is of was stored and empty: what comes is in its first delta, and needs no base.
        stats.continues = Some(Vec::new());
    }
    let continues = matches!(&mine[..], [(_, head, _)] if head.owned == owned);
    for (shard, _, wanted) in &mine {
        let (spill, snapshots): (Vec<_>, Vec<_>) =
            shard.files.iter().partition(|file| file.kind == FileKind::Spill);
        if !spill.is_empty() {
            stats.entries += load_spill(table, storage, &spill, continues, wanted)?;
        }
        for file in &snapshots {
            stats.entries += load_snapshot(table, storage, file)?;
            staunch_crash::point("recovery.file_loaded").map_err(|source| StorageError::Io {
                action: "read",
                name: file.name.clone(),
                place: storage.place(),
                source,
            })?;
        }
        stats.files += shard.files.len() as u64;
        stats.bytes += shard.files.iter().map(|file| file.bytes).sum::<u64>();
        if continues {
            stats.continues = Some(shard.files.clone());
        }
    }
    stats.took = started.elapsed();
    Ok(stats)
}

/// Whose state a shard is: told by the first snapshot file.
fn head_of(table: &dyn AnyTable, storage: &dyn Storage, shard: &Shard) -> Result<Head, StateError> {
    let Some(file) = shard.files.iter().find(|file| file.kind != FileKind::Spill) else {
        let problem = "RocksDB files without a base".to_owned();
        return Err(StateError::Foreign { file: shard.files[0].name.clone(), problem });
    };
    let snapshot = Snapshot::open(storage, file)?;
    check_head(table, file, snapshot.head())?;
    Ok(snapshot.head().clone())
}

fn check_head(table: &dyn AnyTable, file: &FileRef, head: &Head) -> Result<(), StateError> {
    let problem = if head.step != table.name() {
        format!("it is state of step {}, not of {}", head.step, table.name())
    } else if head.groups != table.groups() {
        let (found, now) = (head.groups.count(), table.groups().count());
        format!("it was written with {found} key groups, the job has {now}")
    } else {
        return Ok(());
    };
    Err(StateError::Foreign { file: file.name.clone(), problem })
}

/// The groups that both the table and the writer of a shard own.
fn wanted_groups(table: &dyn AnyTable, head: &Head) -> Vec<u16> {
    let theirs = |group: &u16| head.owned.iter().any(|(from, to)| (from..=to).contains(&group));
    table.owned().iter().copied().filter(theirs).collect()
}

fn load_snapshot(table: &mut dyn AnyTable, storage: &dyn Storage, file: &FileRef) -> Result<u64, StateError> {
    let snapshot = Snapshot::open(storage, file)?;
    check_head(table, file, snapshot.head())?;
    let owned = table.owned().to_vec();
    let mut entries = 0;
    snapshot.read(
        |group| owned.binary_search(&group).is_ok(),
        |section, bytes| {
            let loaded = table.load_section(section.group, bytes)?;
            if loaded != section.entries {
                let problem = format!("{loaded} entries instead of {}", section.entries);
                return Err(StateError::damaged(
                    &file.name,
                    file.offset.saturating_add(section.offset),
                    problem,
                ));
            }
            entries += loaded;
            Ok(())
        },
    )?;
    Ok(entries)
}

/// Brings a copied RocksDB tier into the table: as it is, or group by group.
fn load_spill(
    table: &mut dyn AnyTable,
    storage: &dyn Storage,
    files: &[&FileRef],
    adopt: bool,
    wanted: &[u16],
) -> Result<u64, StateError> {
    if adopt {
        fetch(storage, files, &table.live_folder())?;
        table.adopt()?;
        return Ok(0);
    }
    let folder = table.scratch().join("import");
    fetch(storage, files, &folder)?;
    table.import(&folder, wanted)
}

/// Copies the files of a database to an emptied folder and verifies them.
fn fetch(storage: &dyn Storage, files: &[&FileRef], folder: &Path) -> Result<(), StateError> {
    wipe(folder)?;
    for file in files {
        let Some(local) = local_name(&file.name) else {
            let problem = "it is not named like a RocksDB file".to_owned();
            return Err(StateError::Foreign { file: file.name.clone(), problem });
        };
        let path = folder.join(local);
        if local.ends_with(".sst") {
            // Never changed once written, so it may be a hard link.
            storage.get_file(&file.name, &path)?;
        } else {
            let bytes = storage.get(&file.name)?;
            std::fs::write(&path, bytes).map_err(StateError::io("write", &path))?;
        }
        let (bytes, crc32c) = checksum(&path)?;
        if (bytes, crc32c) != (file.bytes, file.crc32c) {
            let problem = format!(
                "length {bytes} and checksum {crc32c:08x} instead of {} and {:08x}",
                file.bytes, file.crc32c
            );
            return Err(StateError::damaged(&file.name, bytes.min(file.bytes), problem));
        }
    }
    Ok(())
}
