use super::*;
use std::sync::Arc;

fn directory() -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path().join("a/b")).unwrap();
    (folder, directory)
}

#[test]
fn blobs_are_written_replaced_listed_and_deleted() {
    let (_folder, store) = directory();
    store.put("state/x/1", b"one").unwrap();
    store.put("state/x/1", b"two").unwrap();
    store.put("state/y", b"three").unwrap();
    store.put("log", b"four").unwrap();
    assert_eq!(store.get("state/x/1").unwrap(), b"two");
    assert_eq!(store.list("").unwrap(), ["log", "state/x/1", "state/y"]);
    assert_eq!(store.list("state/").unwrap(), ["state/x/1", "state/y"]);
    assert!(store.list("nothing/").unwrap().is_empty());
    store.delete("log").unwrap();
    store.delete("log").unwrap();
    assert!(matches!(store.get("log"), Err(StorageError::NotFound { .. })));
    assert_eq!(std::fs::read_dir(store.path().join(".tmp")).unwrap().count(), 0);
}

#[test]
fn ranges_are_exact_or_an_error() {
    let (_folder, store) = directory();
    store.put("blob", b"0123456789").unwrap();
    assert_eq!(store.get_range("blob", 3, 4).unwrap(), b"3456");
    assert_eq!(store.get_range("blob", 10, 0).unwrap(), b"");
    for (offset, length) in [(7, 4), (11, 0), (0, u64::MAX), (u64::MAX, 1)] {
        let error = store.get_range("blob", offset, length).unwrap_err();
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
    }
}

#[test]
fn of_many_creators_of_a_record_exactly_one_wins() {
    let (folder, _) = directory();
    let stores: Vec<_> =
        (0..4).map(|_| Arc::new(Directory::open(folder.path().join("a/b")).unwrap())).collect();
    for record in 0..50 {
        let threads: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(number, store)| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let text = number.to_string();
                    store.put_if_absent(&format!("log/{record}"), text.as_bytes()).unwrap()
                })
            })
            .collect();
        let puts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(puts.iter().filter(|put| **put == Put::Created).count(), 1);
        let winner = puts.iter().position(|put| *put == Put::Created).unwrap();
        assert_eq!(stores[0].get(&format!("log/{record}")).unwrap(), winner.to_string().as_bytes());
    }
}

#[test]
fn local_files_go_in_and_out_and_putting_one_twice_leaves_nothing_behind() {
    let (folder, store) = directory();
    let local = folder.path().join("local");
    std::fs::write(&local, b"table").unwrap();
    store.put_file("state/table", &local).unwrap();
    store.put_file("state/table", &local).unwrap();
    std::fs::remove_file(&local).unwrap();
    let back = folder.path().join("back");
    store.get_file("state/table", &back).unwrap();
    assert_eq!(std::fs::read(&back).unwrap(), b"table");
    assert_eq!(std::fs::read_dir(store.path().join(".tmp")).unwrap().count(), 0);
    let missing = store.get_file("state/none", &folder.path().join("none"));
    assert!(matches!(missing, Err(StorageError::NotFound { .. })));
    let missing = store.put_file("state/none", &folder.path().join("gone")).unwrap_err();
    assert!(matches!(missing, StorageError::Io { .. }), "{missing}");
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let (_folder, store) = directory();
    for name in ["", "/etc/passwd", "../x", "a//b", "a/", "a/./b", "a b", "lock", ".tmp/x", "ä"] {
        assert!(store.put(name, b"x").is_err(), "{name}");
    }
}

#[test]
fn opening_removes_temporary_files_of_dead_processes_only() {
    let (_folder, store) = directory();
    let tmp = store.path().join(".tmp");
    let host = super::temporary::host();
    let mut alive = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let mine = super::temporary::Temporary::new(store.path());
    std::fs::write(mine.path(), b"").unwrap();
    let other = tmp.join(format!("{host}.{}.5.0", alive.id()));
    let elsewhere = tmp.join("another-host.1.5.0");
    let dead = tmp.join(format!("{host}.4194999.5.0"));
    let reborn = tmp.join(format!("{host}.{}.5.0", std::process::id()));
    for path in [&other, &elsewhere, &dead, &reborn] {
        std::fs::write(path, b"").unwrap();
    }
    Directory::open(store.path()).unwrap();
    assert!(mine.path().exists() && other.exists() && elsewhere.exists());
    assert!(!dead.exists() && !reborn.exists());
    alive.kill().unwrap();
    alive.wait().unwrap();
}

#[test]
fn a_second_lock_is_refused_with_the_holder_named_and_free_after_drop() {
    let (_folder, store) = directory();
    let lock = store.try_lock().unwrap();
    let error = Directory::open(store.path()).unwrap().try_lock().unwrap_err().to_string();
    let expected = format!("already running on these checkpoints (pid {}", std::process::id());
    assert!(error.contains(&expected), "{error}");
    drop(lock);
    store.try_lock().unwrap();
    assert!(store.list("").unwrap().is_empty());
}

#[test]
fn failures_say_what_where_and_why() {
    let (_folder, store) = directory();
    store.put("file", b"x").unwrap();
    let error = store.put("file/below", b"y").unwrap_err().to_string();
    assert!(error.contains("file/below") && error.contains(&store.place()), "{error}");
    let full = super::advised(Error::from(ErrorKind::StorageFull)).to_string();
    assert!(full.contains("free space"), "{full}");
}

#[test]
fn a_local_file_that_is_the_blob_already_is_success_and_leaves_it_whole() {
    let (folder, store) = directory();
    store.put("state/table", b"a stored table").unwrap();
    let local = folder.path().join("local");
    std::fs::hard_link(store.path().join("state/table"), &local).unwrap();
    store.get_file("state/table", &local).unwrap();
    assert_eq!(store.get("state/table").unwrap(), b"a stored table");
    store.put_file("state/table", &local).unwrap();
    assert_eq!(store.get("state/table").unwrap(), b"a stored table");
}

#[test]
fn a_link_that_leads_nowhere_is_not_an_empty_folder_and_not_a_missing_blob() {
    let (folder, store) = directory();
    store.put("log/1", b"decided").unwrap();
    let (mounted, away) = (store.path().join("log"), folder.path().join("away"));
    std::fs::rename(&mounted, &away).unwrap();
    std::os::unix::fs::symlink(&away, &mounted).unwrap();
    assert_eq!(store.list("log/").unwrap(), ["log/1"]);
    assert!(matches!(store.get("log/2"), Err(StorageError::NotFound { .. })));
    std::fs::rename(&away, folder.path().join("not mounted")).unwrap();
    let errors = [
        store.list("log/").unwrap_err(),
        store.get("log/1").unwrap_err(),
        store.get_range("log/1", 0, 1).unwrap_err(),
        store.get_file("log/1", &folder.path().join("local")).unwrap_err(),
        store.delete("log/1").unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StorageError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains("leads nowhere"), "{error}");
    }
}

#[test]
fn a_directory_that_was_replaced_or_removed_knows_of_no_absence() {
    let (folder, store) = directory();
    store.put("log/1", b"decided").unwrap();
    std::fs::rename(store.path(), folder.path().join("away")).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::create_dir(store.path()).unwrap();
        }
        let errors = [store.list("log/").unwrap_err(), store.get("log/1").unwrap_err()];
        for error in errors {
            assert!(matches!(error, StorageError::Io { .. }), "{error:?}");
            assert!(error.to_string().contains("removed or replaced"), "{error}");
        }
    }
}

#[test]
fn a_blob_is_not_missing_because_the_local_folder_is() {
    let (folder, store) = directory();
    store.put("state/table", b"x").unwrap();
    let error = store.get_file("state/table", &folder.path().join("none/local")).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error:?}");
}
