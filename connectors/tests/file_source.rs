//! Files as sources, as a job uses them: directories, typed rows, files that grow, files that vanish. (Lines that
//! are too long: `long_lines.rs`.)
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{here, poll, read_all, run};
use serde::Deserialize;
use staunch_connectors::file::{self, FileSplit};
use staunch_core::source::{Progress, Records, Source, SplitReader};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
struct Flight {
    carrier: String,
    flight: u32,
    dep_delay: Option<i32>,
}

#[test]
fn a_directory_is_read_by_name_without_hidden_and_unfinished_files() {
    run(async {
        let dir = TempDir::new().unwrap();
        for (name, text) in [
            ("b.txt", "3\n4"),
            ("a.txt", "1\r\n2\r\n"),
            (".hidden", "no"),
            ("c.txt.tmp", "no"),
            ("d.txt~", "no"),
            ("empty.txt", ""),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::create_dir(dir.path().join("folder")).unwrap();
        let all = read_all(&file::lines(dir.path())).await.unwrap();
        let all: Vec<(&str, &[String])> =
            all.iter().map(|(id, lines, _)| (id.as_str(), lines.as_slice())).collect();
        let (a, b) = (strings(&["1", "2"]), strings(&["3", "4"]));
        assert_eq!(all, [("a.txt", a.as_slice()), ("b.txt", &b), ("empty.txt", &[])]);
        let one = read_all(&file::lines(dir.path().join("a.txt"))).await.unwrap();
        assert_eq!(one, [("a.txt".to_owned(), a, vec![])]);
    });
}

#[test]
fn a_link_to_a_file_of_the_same_directory_is_passed_over_and_one_to_any_other_file_is_read() {
    run(async {
        let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (here, there) = (dir.path(), elsewhere.path());
        fs::write(here.join("a.txt"), "1\n").unwrap();
        fs::write(here.join(".hidden"), "2\n").unwrap();
        fs::write(there.join("far.txt"), "3\n").unwrap();
        symlink("a.txt", here.join("alias.txt")).unwrap();
        symlink(here.join("a.txt"), here.join("0.txt")).unwrap();
        symlink(".hidden", here.join("b.txt")).unwrap();
        symlink(there.join("far.txt"), here.join("c.txt")).unwrap();
        // The directory may have two names, too.
        symlink(here, there.join("directory")).unwrap();
        for path in [here.to_owned(), there.join("directory")] {
            let all = read_all(&file::lines(&path)).await.unwrap();
            let all: Vec<(&str, &[String])> =
                all.iter().map(|(id, lines, _)| (id.as_str(), lines.as_slice())).collect();
            let [a, b, c] = ["1", "2", "3"].map(|line| strings(&[line]));
            assert_eq!(all, [("a.txt", a.as_slice()), ("b.txt", &b), ("c.txt", &c)], "{}", path.display());
        }
    });
}

#[test]
fn a_file_with_two_names_in_a_directory_is_refused_and_both_are_said() {
    run(async {
        let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let far = elsewhere.path().join("far.txt");
        let [one, two] = ["one.txt", "two.txt"].map(|name| dir.path().join(name));
        fs::write(&far, "1\n").unwrap();
        for kind in ["hard link", "links to a file elsewhere"] {
            if kind == "hard link" {
                fs::write(&one, "1\n").unwrap();
                fs::hard_link(&one, &two).unwrap();
            } else {
                symlink(&far, &one).unwrap();
                symlink(&far, &two).unwrap();
            }
            let error = file::lines(dir.path()).splits(&here()).await.unwrap_err();
            for word in ["one.txt", "two.txt", "are the same file"] {
                assert!(error.to_string().contains(word), "{kind}: no {word:?} in {error}");
            }
            assert_eq!(error.kind(), staunch_core::error::Kind::Job, "{kind}");
            fs::remove_file(&two).unwrap();
            let all = read_all(&file::lines(dir.path())).await.unwrap();
            assert_eq!(all, [("one.txt".to_owned(), strings(&["1"]), vec![])], "{kind}");
            fs::remove_file(&one).unwrap();
        }
    });
}

/// What such an entry leads to may only be away for a while; its records would be missing without a word.
#[test]
fn an_entry_of_a_directory_that_cannot_be_looked_at_is_an_error_and_never_passed_over() {
    run(async {
        let long = "x".repeat(300);
        for target in ["nothing.txt", "away/file.txt", "a.txt/file", "loop.txt", long.as_str()] {
            let dir = TempDir::new().unwrap();
            fs::write(dir.path().join("a.txt"), "1\n").unwrap();
            symlink(target, dir.path().join("loop.txt")).unwrap();
            for follow in [false, true] {
                let error = file::lines(dir.path()).follow(follow).splits(&here()).await.unwrap_err();
                assert!(error.to_string().contains("loop.txt"), "{target}: {error}");
                assert_eq!(error.kind(), staunch_core::error::Kind::External, "{target}: {error}");
            }
            fs::remove_file(dir.path().join("loop.txt")).unwrap();
            symlink(target, dir.path().join("unfinished.tmp")).unwrap();
            let all = read_all(&file::lines(dir.path())).await.unwrap();
            assert_eq!(all.len(), 1, "{target}: what is not to be read is not looked at");
        }
        // A directory that cannot be looked at is no single file either.
        let dir = TempDir::new().unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let source = file::lines(dir.path().join("loop"));
        let error = source.open(FileSplit::named("a"), None, &here()).await.unwrap_err();
        assert_eq!(error.kind(), staunch_core::error::Kind::External, "{error}");
    });
}

#[test]
fn csv_rows_are_typed_by_the_header_and_bad_ones_say_where_and_why() {
    run(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("flights.csv");
        fs::write(&path, "dep_delay;carrier;flight\n2;UA;1545\n;AA;1141\nlate;B6;725\n1;DL\n").unwrap();
        let (_, rows, bad) = read_all(&file::rows::<Flight>(&path).delimiter(b';')).await.unwrap().remove(0);
        let flight = |carrier: &str, flight, dep_delay| Flight { carrier: carrier.into(), flight, dep_delay };
        assert_eq!(rows, [flight("UA", 1545, Some(2)), flight("AA", 1141, None)]);
        assert_eq!((bad[0].place.as_str(), bad[0].raw.as_str()), ("flights.csv line 4", "late;B6;725"));
        assert!(
            bad[0].reason.contains("`dep_delay`") && bad[0].reason.contains("\"late\""),
            "{}",
            bad[0].reason
        );
        assert_eq!(bad[1].place, "flights.csv line 5");
        assert!(bad[1].reason.contains("number of fields is 2"), "{}", bad[1].reason);
        let error = file::rows::<Flight>(&path).delimiter(b'"').splits(&here()).await.unwrap_err();
        assert!(error.to_string().contains("delimiter"), "{error}");
    });
}

#[test]
fn missing_and_unreadable_paths_say_what_to_do() {
    run(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("missing");
        let error = file::lines(&path).splits(&here()).await.unwrap_err();
        assert!(error.to_string().contains("missing does not exist; give the path"), "{error}");
        assert_eq!(error.kind(), staunch_core::error::Kind::Job);
        let error = file::lines("/dev/null").splits(&here()).await.unwrap_err();
        assert!(error.to_string().contains("neither a file nor a directory"), "{error}");
        fs::write(&path, "a\n").unwrap();
        let source = file::lines(&path);
        let (_, split) = source.splits(&here()).await.unwrap().remove(0);
        fs::rename(&path, dir.path().join("other")).unwrap();
        let error = source.open(split.clone(), None, &here()).await.unwrap_err();
        assert!(error.to_string().contains("cannot open"), "{error}");
        let error = file::lines(dir.path().join("other")).open(split, None, &here()).await.unwrap_err();
        assert!(error.to_string().contains("position in `missing`"), "{error}");
    });
}

/// The long record is more than is handed out at once, and all the others are read together with it.
#[test]
fn short_records_behind_a_very_long_one_stay_apart() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (path, long) = (dir.path().join("long"), "x".repeat(5 << 20));
        fs::write(&path, format!("{long}\n{}", "x\n".repeat(100))).unwrap();
        let (_, lines, bad) = read_all(&file::lines(&path)).await.unwrap().remove(0);
        assert_eq!((lines.len(), bad), (101, vec![]));
        assert!(lines[0] == long && lines[1..].iter().all(|line| line == "x"));
        let is_right = |rows: &[Flight]| {
            let short = rows[1..].iter().all(|row| row.carrier == "x" && row.flight == 2);
            rows[0].carrier == long && rows[0].flight == 1 && short
        };
        let text = format!("carrier,flight,dep_delay\n{long},1,\n{}", "x,2,\n".repeat(100));
        fs::write(&path, text).unwrap();
        let (_, rows, bad) = read_all(&file::rows::<Flight>(&path)).await.unwrap().remove(0);
        assert_eq!((rows.len(), bad), (101, vec![]));
        assert!(is_right(&rows));
        let row = |carrier: &str, flight: u32| format!("{{\"carrier\":\"{carrier}\",\"flight\":{flight}}}\n");
        fs::write(&path, row(&long, 1) + &row("x", 2).repeat(100)).unwrap();
        let (_, rows, bad) = read_all(&file::json_rows::<Flight>(&path)).await.unwrap().remove(0);
        assert_eq!((rows.len(), bad), (101, vec![]));
        assert!(is_right(&rows));
    });
}

#[test]
fn a_followed_file_yields_lines_as_they_become_complete() {
    run(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("log.txt");
        fs::write(&path, "").unwrap();
        let source = file::lines(&path).follow(true);
        assert!(source.discover_every().is_some() && file::lines(&path).discover_every().is_none());
        let (_, split) = source.splits(&here()).await.unwrap().remove(0);
        let mut reader = source.open(split.clone(), None, &here()).await.unwrap();
        let idle = poll(&mut reader, |_| true).unwrap();
        assert_eq!((idle.progress, idle.records.len()), (Progress::Idle, 0));
        append(&path, "one\ntw");
        assert_eq!(poll(&mut reader, |records| !records.is_empty()).unwrap().records, ["one"]);
        std::thread::sleep(Duration::from_millis(150));
        assert!(poll(&mut reader, |_| true).unwrap().records.is_empty(), "a partial line waits");
        append(&path, "o\nthree\n");
        assert_eq!(poll(&mut reader, |records| records.len() == 2).unwrap().records, ["two", "three"]);
        let at = reader.position();
        drop(reader);
        append(&path, "four\n");
        let mut reader = source.open(split, Some(at), &here()).await.unwrap();
        assert_eq!(poll(&mut reader, |records| !records.is_empty()).unwrap().records, ["four"]);
    });
}

#[test]
fn a_followed_csv_file_waits_for_its_header_and_for_closing_quotes() {
    run(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("f.csv");
        fs::write(&path, "carrier,fli").unwrap();
        let source = file::rows::<Flight>(&path).follow(true);
        let (_, split) = source.splits(&here()).await.unwrap().remove(0);
        let mut reader = source.open(split, None, &here()).await.unwrap();
        append(&path, "ght,dep_delay\n\"U\n");
        std::thread::sleep(Duration::from_millis(150));
        assert!(poll(&mut reader, |_| true).unwrap().records.is_empty());
        append(&path, "A\",1,\n");
        let rows = poll(&mut reader, |records| !records.is_empty()).unwrap().records;
        assert_eq!(rows, [Flight { carrier: "U\nA".into(), flight: 1, dep_delay: None }]);
    });
}

#[test]
fn new_files_turn_up_in_a_followed_directory() {
    run(async {
        let dir = TempDir::new().unwrap();
        let source = file::lines(dir.path()).follow(true);
        assert!(source.splits(&here()).await.unwrap().is_empty());
        fs::write(dir.path().join("new.txt"), "1\n").unwrap();
        let ids: Vec<String> = source.splits(&here()).await.unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["new.txt"]);
    });
}

#[test]
fn a_followed_file_that_is_deleted_ends_and_one_that_is_cut_or_replaced_is_an_error() {
    run(async {
        for change in ["delete", "cut", "regrow", "replace", "rename"] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("log.txt");
            fs::write(&path, "one\ntwo\n").unwrap();
            let source = file::lines(&path).follow(true);
            let (_, split) = source.splits(&here()).await.unwrap().remove(0);
            let mut reader = source.open(split, None, &here()).await.unwrap();
            assert_eq!(poll(&mut reader, |records| records.len() == 2).unwrap().records, ["one", "two"]);
            match change {
                "delete" => {
                    append(&path, "last");
                    fs::remove_file(&path).unwrap();
                }
                "cut" => fs::write(&path, "new\n").unwrap(),
                "regrow" => fs::write(&path, "new\n".repeat(100)).unwrap(),
                "replace" => {
                    fs::write(dir.path().join("new"), "one\ntwo\nthree\n").unwrap();
                    fs::rename(dir.path().join("new"), &path).unwrap();
                }
                _ => fs::rename(&path, dir.path().join("log.1")).unwrap(),
            }
            match (change, poll(&mut reader, |_| false)) {
                ("delete", Ok(polled)) => assert_eq!(polled.records, ["last"]),
                ("delete", Err(error)) => panic!("{error}"),
                (_, Ok(_)) => panic!("{change}: no error"),
                (_, Err(error)) => assert!(error.to_string().contains("must only grow"), "{error}"),
            }
        }
    });
}

/// Nobody polls, so that the reader is far from noticing it at the end of the file.
#[test]
fn a_file_that_is_renamed_while_its_reader_is_behind_is_not_read_twice() {
    run(async {
        for link in [false, true] {
            let dir = TempDir::new().unwrap();
            let (old, new) = (dir.path().join("a.log"), dir.path().join("b.log"));
            fs::write(&old, "line\n".repeat(500_000)).unwrap();
            let source = file::lines(dir.path()).follow(true);
            let (_, split) = source.splits(&here()).await.unwrap().remove(0);
            let reader = source.open(split.clone(), None, &here()).await.unwrap();
            match link {
                false => fs::rename(&old, &new).unwrap(),
                true => fs::hard_link(&old, &new).unwrap(),
            }
            // Each worker has a source of its own.
            let source = file::lines(dir.path()).follow(true);
            let found = source.splits(&here()).await.unwrap_err().to_string();
            assert!(found.contains("a.log") && found.contains("b.log"), "{found}");
            // As if it had been found a moment before the reader was there.
            let second = FileSplit::named("b.log");
            let opened = source.open(second.clone(), None, &here()).await.err().unwrap().to_string();
            assert!(opened.contains("read as a.log") && opened.contains("must keep its name"), "{opened}");
            // Once the reader is gone, it may be read.
            drop(reader);
            let place = here();
            let gone = || source.open(second.clone(), None, &place);
            let begin = Instant::now();
            while let Err(error) = gone().await {
                assert!(begin.elapsed() < Duration::from_secs(20), "{error}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

/// Nobody polls, so that the reading thread is blocked in the middle of the file when it changes.
#[test]
fn a_file_that_is_cut_while_its_reader_is_blocked_is_an_error() {
    run(async {
        let original: Vec<String> = (0..100_000).map(|n| format!("line {n}")).collect();
        let longer = "another line\n".repeat(200_000);
        for (follow, new) in [(true, longer.as_str()), (false, longer.as_str()), (false, "short\n")] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("log.txt");
            fs::write(&path, original.join("\n") + "\n").unwrap();
            let source = file::lines(&path).follow(follow);
            let (_, split) = source.splits(&here()).await.unwrap().remove(0);
            let mut reader = source.open(split, None, &here()).await.unwrap();
            std::thread::sleep(Duration::from_millis(200));
            fs::write(&path, new).unwrap();
            let mut cx = Context::from_waker(Waker::noop());
            let (mut out, begin) = (Records::with_limit(usize::MAX), Instant::now());
            let error = loop {
                match reader.poll(&mut cx, &mut out) {
                    Err(error) => break error.to_string(),
                    Ok(progress) => assert_ne!(progress, Progress::End, "after {}", out.records().len()),
                }
                assert!(begin.elapsed() < Duration::from_secs(20), "after {}", out.records().len());
                std::thread::sleep(Duration::from_millis(1));
            };
            assert!(error.contains("was cut") && error.contains("must only grow"), "{error}");
            assert!(original.starts_with(out.records()), "nothing of the new text");
        }
    });
}

/// Every record of larger files is read; how fast is printed, not judged.
#[test]
fn large_files_are_read_to_the_end() {
    const ROWS: usize = 200_000;
    run(async {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("flights.csv");
        let mut text = "carrier,flight,dep_delay\n".to_owned();
        (0..ROWS).for_each(|i| text.push_str(&format!("UA,{i},{}\n", i % 60)));
        fs::write(&path, &text).unwrap();
        let json = dir.path().join("flights.jsonl");
        fs::write(&json, "{\"carrier\":\"UA\",\"flight\":1545,\"dep_delay\":-4}\n".repeat(ROWS)).unwrap();
        assert_eq!(measure("lines", file::lines(&path)).await, ROWS + 1);
        assert_eq!(measure("CSV rows", file::rows::<Flight>(&path)).await, ROWS);
        assert_eq!(measure("JSON rows", file::json_rows::<Flight>(&json)).await, ROWS);
    });
}

async fn measure<S: Source>(what: &str, source: S) -> usize {
    let (_, split) = source.splits(&here()).await.unwrap().remove(0);
    let mut reader = source.open(split, None, &here()).await.unwrap();
    // On a thread of its own, as the engine does it: inside the runtime, tokio's budget of polls would
    // leave the channel of a background reader pending for ever.
    std::thread::scope(|scope| scope.spawn(|| read_and_count(what, &mut reader)).join().unwrap())
}

fn read_and_count<R: SplitReader>(what: &str, reader: &mut R) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let (begin, mut count) = (Instant::now(), 0);
    loop {
        let mut out = Records::with_limit(1024);
        let progress = reader.poll(&mut cx, &mut out).unwrap();
        count += std::hint::black_box(out.records()).len();
        assert!(out.bad_input().is_empty());
        match progress {
            Progress::End => break,
            Progress::Idle => std::thread::yield_now(),
            Progress::Ready => {}
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("MEASURED: {what} read at {rate:.1} M records/s");
    count
}
