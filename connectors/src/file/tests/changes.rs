//! Files that change while they are read, or between two runs.

use super::{LIMIT, Row, append, open, open_as, read, read_on, take};
use crate::file::reader::FileReader;
use crate::formats::{Csv, Text};
use staunch_core::background::BlockingReader;
use staunch_core::source::{Progress, Records};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// Who has so many files that the process lets go of quiet ones, and who needs that it does not.
static FILES_OF_THE_PROCESS: RwLock<()> = RwLock::new(());

#[test]
fn a_changed_file_is_an_error_and_never_read_from_the_wrong_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let row = |i| format!("name-{i:03},{i}\n");
    let text = |rows: std::ops::Range<u32>| "name,count\n".to_owned() + &rows.map(row).collect::<String>();
    let original = text(0..200);
    std::fs::write(file.path(), &original).unwrap();
    let (_, positions) = read(open(file.path(), Csv::<Row>::new(), None).unwrap(), 1);
    let (_, at) = positions.iter().find(|(count, _)| *count == 150).unwrap();
    let refused = |new: &str| {
        std::fs::write(file.path(), new).unwrap();
        open(file.path(), Csv::<Row>::new(), Some(at)).err().map(|e| e.to_string())
    };
    assert_eq!(refused(&original), None);
    assert_eq!(refused(&text(0..500)), None, "a file may grow");
    for (new, why) in [
        (&original[..100], "it has 100 bytes"),
        ("", "it has 0 bytes"),
        (&original.replace("name,count", "name,total"), "header"),
        (&original.replace("name-007,7", "name-007,8"), "beginning"),
        (&original.replace("name-149,149", "name-149,148"), "64 bytes before"),
        (&text(1..300), "beginning"),
    ] {
        let error = refused(new).unwrap_or_else(|| panic!("{why}: not refused"));
        assert!(error.contains(why) && error.contains("Put the original back"), "{error}");
    }
}

#[test]
fn a_last_line_that_was_read_without_its_end_must_not_go_on() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a\nb").unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    let mut out = Records::with_limit(10);
    while reader.read(&mut out).unwrap() != Progress::End {}
    let at = reader.position();
    assert!(open(file.path(), Text, Some(&at)).is_ok());
    std::fs::write(file.path(), "a\nbc\n").unwrap();
    let error = open(file.path(), Text, Some(&at)).unwrap_err().to_string();
    assert!(error.contains("now goes on"), "{error}");
}

#[test]
fn what_is_appended_to_a_last_line_without_line_end_is_never_read() {
    let _few = FILES_OF_THE_PROCESS.read().unwrap_or_else(PoisonError::into_inner);
    for deleted in [false, true] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1\n12").unwrap();
        let mut writer = OpenOptions::new().append(true).open(file.path()).unwrap();
        let mut reader = open_as(file.path(), Text, deleted, None).unwrap();
        if deleted {
            std::fs::remove_file(file.path()).unwrap();
        }
        assert_eq!(take(&mut reader, 2), ["1", "12"]);
        writer.write_all(b"34\n").unwrap();
        let (records, progress) = read_on(&mut reader, 10);
        assert_eq!((records, progress.unwrap()), (Vec::new(), Progress::End));
        assert!(reader.position().offset == 4 && reader.position().unterminated);
    }
}

#[test]
fn what_is_appended_to_a_header_or_a_long_line_without_line_end_is_never_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "name,cou").unwrap();
    let reader = open(file.path(), Csv::<Row>::new(), None).unwrap();
    append(file.path(), "nt\na,1\n");
    let (items, _) = read(reader, 10);
    assert!(items.is_empty(), "{items:?}");
    std::fs::write(file.path(), "x".repeat(LIMIT * 3)).unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    loop {
        let mut out = Records::with_limit(1);
        assert_eq!(reader.read(&mut out).unwrap(), Progress::Ready);
        if !out.bad_input().is_empty() {
            break;
        }
    }
    append(file.path(), "x\ny\n");
    let (records, progress) = read_on(&mut reader, 10);
    assert_eq!((records, progress.unwrap()), (Vec::new(), Progress::End));
}

/// The last line was read without its line end, because nobody followed the file; now somebody does.
#[test]
fn a_followed_file_must_not_go_on_behind_a_last_line_that_was_read_without_its_end() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\n12").unwrap();
    let mut reader = open(file.path(), Text, None).unwrap();
    assert_eq!(read_on(&mut reader, 10).0, ["1", "12"]);
    let mut reader = open_as(file.path(), Text, true, Some(&reader.position())).unwrap();
    assert_eq!(read_on(&mut reader, 10).1.unwrap(), Progress::Idle);
    append(file.path(), "34\n");
    let (records, progress) = read_on(&mut reader, 10);
    assert_eq!(records, Vec::<String>::new());
    let error = progress.unwrap_err().to_string();
    assert!(error.contains("now goes on"), "{error}");
}

#[test]
fn a_file_that_was_cut_is_an_error_also_if_it_has_grown_again() {
    let original: String = (0..200).map(|n| format!("line {n}\n")).collect();
    let lines: Vec<&str> = original.lines().collect();
    let other = "another line\n".repeat(300);
    // Records read before the change, all of them or so many that the reader stands in the middle; the new text.
    let changes = [
        (20, String::new()),
        (20, original[..20].to_owned()),
        (20, other.clone()),
        (20, original.replacen("line 0", "LINE 0", 1)),
        (190, original[..1100].to_owned()),
        (190, original[..1100].to_owned() + &other),
        (200, String::new()),
        (200, original[..1100].to_owned()),
        (200, other.clone()),
        (200, original[..1100].to_owned() + &other),
    ];
    for (read, new) in changes {
        for follow in [false, true] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &original).unwrap();
            let mut reader = open_as(file.path(), Text, follow, None).unwrap();
            assert_eq!(take(&mut reader, read), lines[..read]);
            if follow && read == lines.len() {
                assert_eq!(read_on(&mut reader, 1).1.unwrap(), Progress::Idle);
            }
            std::fs::write(file.path(), &new).unwrap();
            let (records, progress) = read_on(&mut reader, 1);
            assert_eq!(records, lines[read..read + records.len()], "nothing of the new text");
            let error = progress.unwrap_err().to_string();
            let why = if follow { "while it was followed" } else { "while it was read" };
            assert!(error.contains("was cut") && error.contains(why), "{error}");
        }
    }
}

/// In this build a process may have 64 files open.
#[test]
fn many_quiet_followed_files_are_let_go_and_what_happens_to_them_is_noticed_all_the_same() {
    let _many = FILES_OF_THE_PROCESS.write().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::TempDir::new().unwrap();
    let path = |n: usize| dir.path().join(format!("{n:03}"));
    let open_here = || {
        let links =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fd.ok()?.path().read_link().ok());
        links.filter(|file| file.starts_with(dir.path())).count()
    };
    let mut readers: Vec<FileReader<Text>> = (0..200)
        .map(|n| {
            std::fs::write(path(n), format!("{n}\n")).unwrap();
            let mut reader = open_as(&path(n), Text, true, None).unwrap();
            let (lines, progress) = read_on(&mut reader, 10);
            assert_eq!((lines, progress.unwrap()), (vec![n.to_string()], Progress::Idle));
            reader
        })
        .collect();
    assert!(open_here() <= 64, "{} are open", open_here());
    for (reader, n) in readers.iter_mut().zip(0..) {
        append(&path(n), "more\npart");
        assert_eq!(read_on(reader, 10).0, ["more"], "{n}");
        append(&path(n), "ly\n");
        assert_eq!(read_on(reader, 10).0, ["partly"], "{n}");
        assert_eq!(read_on(reader, 10).1.unwrap(), Progress::Idle);
    }
    let mut change = |n: usize, change: &dyn Fn(&Path)| {
        change(&path(n));
        read_on(&mut readers[n], 10)
    };
    let (lines, progress) = change(199, &|path| std::fs::remove_file(path).unwrap());
    assert_eq!((lines.len(), progress.unwrap()), (0, Progress::End));
    let (_, progress) = change(198, &|path| append(path, "last"));
    assert_eq!(progress.unwrap(), Progress::Idle);
    let (lines, progress) = change(198, &|path| std::fs::remove_file(path).unwrap());
    assert_eq!((lines, progress.unwrap()), (vec!["last".to_owned()], Progress::End));
    let replace = |path: &Path| {
        std::fs::write(path.with_extension("new"), "198\nmore\npartly\n").unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    for (n, what, why) in [
        (197, &replace as &dyn Fn(&Path), "replaced"),
        (196, &|path| std::fs::write(path, "196\n").unwrap(), "was cut"),
        (195, &|path| std::fs::write(path, "195\nless\npartly\nand more\n").unwrap(), "was cut"),
    ] {
        let error = change(n, what).1.unwrap_err().to_string();
        assert!(error.contains(why), "{n}: {error}");
    }
}

#[test]
fn a_file_that_was_read_to_its_end_may_be_gone_and_no_other_one() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("a.log");
    for (text, follow, whole) in
        [("1\n2\n", true, true), ("1\n2", true, false), ("1\n2", false, true), ("", true, true)]
    {
        std::fs::write(&path, text).unwrap();
        let mut reader = open_as(&path, Text, follow, None).unwrap();
        let _ = read_on(&mut reader, 1);
        let (at, begin) = (reader.position(), open_as(&path, Text, follow, None).unwrap().position());
        std::fs::remove_file(&path).unwrap();
        match open_as(&path, Text, follow, Some(&at)) {
            Ok(mut gone) => {
                assert!(whole, "{text:?}: a line of it was not read");
                let (lines, progress) = read_on(&mut gone, 10);
                assert_eq!((lines.len(), progress.unwrap()), (0, Progress::End));
                assert_eq!(gone.position(), at);
            }
            Err(error) => assert!(!whole && error.to_string().contains("not read to its end"), "{error}"),
        }
        assert!(text.is_empty() || open_as(&path, Text, follow, Some(&begin)).is_err());
    }
}
