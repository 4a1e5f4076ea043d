//! Bad input in whole jobs, from real files: it ends the job, is passed over, or is published as dead letters in
//! the cut that it belongs to.

use crate::faulty::{Deed, Faulty, Moment, faulty};
use crate::harness::{Fuse, Place, Running, eventually, place};
use staunch::core::IntoSource;
use staunch::core::Request;
use staunch::core::error::Kind;
use staunch::file;
use staunch::memory::{Collected, collect};
use staunch::prelude::*;
use staunch_checkpoint::{Manifest, SplitPart};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// Where a line is: the number of its file, and its own in that file, from 1.
type At = (u64, u64);

/// What a good line holds: where it is.
#[derive(Clone, Debug, serde::Deserialize)]
struct Order {
    file: u64,
    line: u64,
}

/// A folder of files that grow. Every fourth line is bad.
struct Input {
    folder: TempDir,
    /// Lines in each file.
    lines: Vec<u64>,
}

fn is_bad((file, line): At) -> bool {
    (file + line).is_multiple_of(4)
}

/// A line without its end. There are three ways to be bad.
fn text((file, line): At) -> Vec<u8> {
    match line % 3 {
        _ if !is_bad((file, line)) => format!("{{\"file\":{file},\"line\":{line}}}").into_bytes(),
        0 => format!("{{\"file\":{file},\"line\":\"{line}\"}}").into_bytes(),
        1 => format!("line {line} of file {file}").into_bytes(),
        _ => [b"\xff ".as_slice(), format!("{line} of {file}").as_bytes()].concat(),
    }
}

/// What is wrong with a bad line.
fn reason((_, line): At) -> &'static str {
    ["invalid type: string", "expected value", "not UTF-8"][(line % 3) as usize]
}

/// Where the line of a letter is.
fn at(letter: &DeadLetter) -> At {
    let (file, line) = letter.place.split_once(".jsonl line ").unwrap();
    (file.parse().unwrap(), line.parse().unwrap())
}

impl Input {
    /// So many files, without a line yet.
    fn new(files: usize) -> Self {
        let mut input = Self { folder: tempfile::tempdir().unwrap(), lines: vec![0; files] };
        input.append_to_all(0);
        input
    }

    fn append(&mut self, file: usize, lines: u64) {
        let path = self.folder.path().join(format!("{file}.jsonl"));
        let before = self.lines[file];
        self.lines[file] += lines;
        let mut bytes = Vec::new();
        for line in before + 1..=self.lines[file] {
            bytes.extend(text((file as u64, line)));
            bytes.push(b'\n');
        }
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(&bytes).unwrap();
    }

    fn append_to_all(&mut self, lines: u64) {
        (0..self.lines.len()).for_each(|file| self.append(file, lines));
    }

    /// The lines that are bad, or those that are not.
    fn that(&self, bad: bool) -> Vec<At> {
        let lines = self.lines.iter().enumerate();
        let all = lines.flat_map(|(file, lines)| (1..=*lines).map(move |line| (file as u64, line)));
        all.filter(|at| is_bad(*at) == bad).collect()
    }

    fn check_orders(&self, orders: &[Order]) {
        let mut found: Vec<At> = orders.iter().map(|order| (order.file, order.line)).collect();
        found.sort_unstable();
        assert_eq!(found, self.that(false), "orders and good lines");
    }

    fn check_letters(&self, letters: &[DeadLetter]) {
        let mut found: Vec<At> = letters.iter().map(at).collect();
        found.sort_unstable();
        assert_eq!(found, self.that(true), "letters and bad lines");
        for letter in letters {
            let at = at(letter);
            assert_eq!(letter.raw, String::from_utf8_lossy(&text(at)), "{letter:?}");
            assert!(letter.reason.contains(reason(at)), "{letter:?}");
        }
    }
}

/// The job without dead letters, on files that are followed.
fn orders_of(
    folder: &Path,
    policy: BadInput,
    output: &Collected<Order>,
) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
    let (folder, sink) = (folder.to_owned(), output.clone());
    move |job| {
        let source = file::json_rows::<Order>(&folder).follow(true).on_bad_input(policy);
        job.source("input", source).sink("output", sink.clone());
        Ok(())
    }
}

/// Runs a job on a file whose third line is bad: it ends with an error that says so, and publishes nothing.
fn fails_at_line_3<S>(text: &[u8], word: &str, source: impl Fn(&Path) -> S + Send + Sync + 'static)
where
    S: IntoSource<Record = Order>,
{
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.txt");
    fs::write(&path, text).unwrap();
    let (place, output) = (place().only_the_last_checkpoint(), collect::<Order>());
    let sink = output.clone();
    let error = place.fail(move |job| {
        job.source("input", source(&path)).sink("output", sink.clone());
        Ok(())
    });
    assert_eq!((error.kind(), error.step()), (Kind::Job, Some("input")), "{error}");
    let text = error.to_string();
    for word in [word, "orders.txt line 3", "the input was", "BadInput::Skip", "source_with_dead_letters"] {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
    assert!(output.committed().is_empty() && place.manifests().is_empty(), "{text}");
}

#[test]
fn bad_input_ends_the_job_and_the_error_says_where_it_is_and_why() {
    let good = |line: u64| format!("{{\"file\":0,\"line\":{line}}}\n").into_bytes();
    let long = "x".repeat(65);
    let of_json: [(&[u8], &str); 5] = [
        (b"{\"file\":0,\"line\":\"three\"}", "invalid type: string \"three\", expected u64 at column"),
        (b"{\"file\":0,", "EOF while parsing"),
        (b"{\"line\":3}", "missing field `file`"),
        (b"\xff", "not UTF-8"),
        (long.as_bytes(), "longer than 64 bytes (the limit of max_line_bytes)"),
    ];
    for (bad, word) in of_json {
        let text = [good(1), good(2), bad.to_vec(), b"\n".to_vec(), good(4)].concat();
        fails_at_line_3(&text, word, |path| file::json_rows::<Order>(path).max_line_bytes(64));
    }
    let of_csv = [
        ("0,three", "column `line`: invalid digit found in string: \"three\""),
        ("0,3,3", "the number of fields is 3, but the header has 2"),
        ("0,\"3", "a quote is not closed"),
    ];
    for (bad, word) in of_csv {
        let text = format!("file,line\n0,2\n{bad}\n0,4\n");
        fails_at_line_3(text.as_bytes(), word, |path| file::rows::<Order>(path).max_line_bytes(64));
    }
}

#[test]
fn a_job_that_ended_at_bad_input_has_published_its_checkpoints_and_nothing_else_and_goes_on_if_it_may_skip() {
    let (mut input, output) = (Input::new(1), collect());
    let (place, folder) = (place().only_the_last_checkpoint(), input.folder.path().to_owned());
    let job = |policy| orders_of(&folder, policy, &output);
    let lines = || output.committed().iter().map(|order| order.line).collect::<Vec<_>>();
    let arrived = |running: &Running| running.metric("staunch_records_in_total", "step=\"output\"");

    let running = place.start(job(BadInput::Fail));
    input.append(0, 2);
    eventually("two lines are in the sink", || arrived(&running) == 2.0);
    running.controls.request(Request::Savepoint("two".into()));
    eventually("they are published", || lines() == [1, 2]);
    input.append(0, 1);
    eventually("the third is in the sink", || arrived(&running) == 3.0);
    // The fourth is bad.
    input.append(0, 3);
    let error = running.wait().unwrap_err();
    assert_eq!((error.kind(), error.step()), (Kind::Job, Some("input")), "{error}");
    let error = error.to_string();
    for word in ["0.jsonl line 4", "expected value", "the input was \"line 4 of file 0\""] {
        assert!(error.contains(word), "no {word:?} in {error:?}");
    }
    // The third belongs to a checkpoint that was never taken.
    let manifests = place.manifests();
    assert_eq!(manifests.len(), 1);
    assert_eq!(covered(&manifests[0]), [(0, 1), (0, 2)]);
    assert_eq!((lines(), output.prepared_parts()), (vec![1, 2], 0));

    // The same again, at the same place.
    assert_eq!(place.fail(job(BadInput::Fail)).to_string(), error);
    assert_eq!(place.manifests(), manifests);
    assert_eq!((lines(), output.prepared_parts()), (vec![1, 2], 0));

    let running = place.start(job(BadInput::Skip));
    eventually("the others are in the sink", || arrived(&running) == 3.0);
    assert_eq!(running.stop(), Outcome::Stopped);
    assert_eq!(lines(), [1, 2, 3, 5, 6]);
    assert_eq!(running.metric("staunch_dead_letter_records_total", "step=\"input\""), 1.0);
}

#[test]
fn skipped_input_is_counted_exactly_and_all_other_records_are_published() {
    let (mut input, mut place, output) = (Input::new(5), place(), collect());
    let (mut good, mut bad) = (0, 0);
    for workers in [2, 3, 1] {
        input.append_to_all(150);
        place.config.workers = workers;
        let running = place.start(orders_of(input.folder.path(), BadInput::Skip, &output));
        let new = |bad: bool, before: usize| (input.that(bad).len() - before) as f64;
        let counted = |name: &str| running.metric(&format!("staunch_{name}"), "step=\"input\"");
        let (records, skipped) = (new(false, good), new(true, bad));
        eventually("all is read", || {
            counted("records_in_total") >= records && counted("dead_letter_records_total") >= skipped
        });
        assert_eq!(running.stop(), Outcome::Stopped);
        // After a stop nothing is read again, so that these are exact.
        assert_eq!(counted("records_in_total"), records);
        assert_eq!(counted("dead_letter_records_total"), skipped);
        (good, bad) = (input.that(false).len(), input.that(true).len());
        input.check_orders(&output.committed());
    }
    assert!(bad >= 500, "{bad} bad lines");
}

/// One of the two ends of the job: a function that can panic, and a sink that can misbehave.
#[derive(Clone)]
struct Exit<T> {
    name: &'static str,
    function: Fuse,
    sink: Faulty<T>,
}

/// What breaks a run off, at one of the exits.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Function,
    Sink(Moment, Deed),
}

impl<T: Clone + Send + 'static> Exit<T> {
    fn new(name: &'static str) -> Self {
        Self { name, function: Fuse::default(), sink: faulty(|_| Deed::Go) }
    }

    fn end(&self, stream: Stream<'_, T>) {
        let function = self.function.clone();
        let passed = stream.inspect(move |_| assert!(!function.burn(), "a function had enough"));
        passed.sink(self.name, self.sink.clone());
    }

    /// From now on the next such moment ends the run.
    fn arm(&self, blow: Blow) {
        let Blow::Sink(moment, deed) = blow else { return self.function.set(1) };
        let (fuse, target, before) = (Fuse::at(1), self.sink.inner.clone(), self.published());
        self.sink.replace(move |now| {
            // The end of an earlier commit may still be to come.
            let is_new = moment != Moment::Committed || target.committed().len() > before;
            if now == moment && is_new && fuse.burn() { deed } else { Deed::Go }
        });
    }

    fn published(&self) -> usize {
        self.sink.committed().len()
    }
}

/// The job with dead letters.
#[derive(Clone)]
struct Sorting {
    orders: Exit<Order>,
    letters: Exit<DeadLetter>,
}

impl Sorting {
    fn new() -> Self {
        Self { orders: Exit::new("orders"), letters: Exit::new("letters") }
    }

    fn job(
        &self,
        folder: &Path,
        follow: bool,
    ) -> impl for<'s> Fn(&Job<'s>) -> Result<()> + Send + Sync + 'static {
        let (exits, folder) = (self.clone(), folder.to_owned());
        move |job| {
            let source = file::json_rows::<Order>(&folder).follow(follow);
            let (good, bad) = job.source_with_dead_letters("input", source);
            exits.orders.end(good);
            exits.letters.end(bad);
            Ok(())
        }
    }

    /// Waits until the job is past its recovery and all input is published; then each line is published once.
    fn settle(&self, running: &Running, input: &Input) {
        eventually("the job runs", || running.metric("staunch_restore_seconds", "") > 0.0);
        let (good, bad) = (input.that(false).len(), input.that(true).len());
        let done = || self.orders.published() >= good && self.letters.published() >= bad;
        eventually("all orders and letters are published", done);
        self.check(input);
    }

    fn check(&self, input: &Input) {
        input.check_orders(&self.orders.sink.committed());
        input.check_letters(&self.letters.sink.committed());
    }
}

#[test]
fn dead_letters_say_where_why_and_what_and_a_run_without_a_crash_counts_each_once() {
    let (mut input, sorting, place) = (Input::new(3), Sorting::new(), place().workers(2));
    input.append_to_all(1000);
    let running = place.start(sorting.job(input.folder.path(), false));
    assert_eq!(running.wait().unwrap(), Outcome::Finished);
    sorting.check(&input);
    let (good, bad) = (input.that(false).len() as f64, input.that(true).len() as f64);
    for (name, step, expected) in [
        ("dead_letter_records_total", "input", bad),
        ("records_in_total", "input", good),
        ("records_in_total", "orders", good),
        ("records_in_total", "letters", bad),
    ] {
        let counted = running.metric(&format!("staunch_{name}"), &format!("step=\"{step}\""));
        assert_eq!(counted, expected, "{name} of {step}");
    }
    assert_eq!(running.metric("staunch_dead_letter_records_total", ""), bad, "of all steps");
    place.assert_tidy();
}

#[test]
fn bad_input_alone_brings_a_checkpoint_and_is_published() {
    let (sorting, place, folder) = (Sorting::new(), place(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("0.jsonl"), "nothing\nnothing at all\n").unwrap();
    let running = place.start(sorting.job(folder.path(), true));
    eventually("both letters are published", || sorting.letters.published() == 2);
    assert_eq!(running.stop(), Outcome::Stopped);
    let places: Vec<_> = sorting.letters.sink.committed().iter().map(at).collect();
    assert_eq!(places, [(0, 1), (0, 2)]);
    assert_eq!(covered(place.manifests().last().unwrap()), [(0, 1), (0, 2)]);
    assert_eq!(sorting.orders.published(), 0);
}

/// Pieces of output of a sink that the newest checkpoint lists.
fn listed(place: &Place, sink: &str) -> usize {
    place.manifests().last().map_or(0, |manifest| manifest.sinks[sink].pending.len())
}

/// The lines before the positions of a checkpoint.
fn covered(manifest: &Manifest) -> Vec<At> {
    let before = |split: &SplitPart| {
        let file: u64 = split.id.strip_suffix(".jsonl").unwrap().parse().unwrap();
        let next = split.position.as_ref().map_or(1, |position| position["line"].as_u64().unwrap());
        (1..next).map(move |line| (file, line))
    };
    manifest.sources["input"].splits.iter().flat_map(before).collect()
}

/// Up to each checkpoint, the output that is listed is that of the lines before its positions: as many orders as
/// good ones, as many letters as bad ones.
fn check_cuts(manifests: &[Manifest]) {
    // A piece is listed until it is known to be published.
    let mut pieces = BTreeMap::new();
    for (sink, part) in manifests.iter().flat_map(|manifest| &manifest.sinks) {
        for piece in &part.pending {
            let id = (sink.as_str(), piece.checkpoint, piece.generation, piece.instance);
            pieces.insert(id, piece.records as usize);
        }
    }
    for manifest in manifests {
        let lines = covered(manifest);
        for (sink, bad) in [("orders", false), ("letters", true)] {
            let so_far = pieces.iter().filter(|(id, _)| id.0 == sink && id.1 <= manifest.checkpoint);
            let records: usize = so_far.map(|(_, records)| records).sum();
            let expected = lines.iter().filter(|at| is_bad(**at) == bad).count();
            assert_eq!(records, expected, "{sink} up to checkpoint {}", manifest.checkpoint);
        }
    }
}

#[test]
fn orders_and_dead_letters_are_published_once_and_by_the_same_cuts_whatever_breaks_a_run_off() {
    let (mut input, sorting, mut place) = (Input::new(4), Sorting::new(), place());
    // All checkpoints are looked at in the end.
    place.config.retained = 1000;
    let Sorting { orders, letters } = &sorting;
    let arm = |at_letters: bool, blow| if at_letters { letters.arm(blow) } else { orders.arm(blow) };
    let mut workers = [1, 3, 2].into_iter().cycle();
    let blows = [
        Blow::Function,
        Blow::Sink(Moment::Write, Deed::Fail),
        Blow::Sink(Moment::Prepare, Deed::Panic),
        Blow::Sink(Moment::Commit, Deed::Refuse),
        Blow::Sink(Moment::Commit, Deed::Panic),
        Blow::Sink(Moment::Committed, Deed::Refuse),
    ];
    for (at_letters, blow) in blows.into_iter().flat_map(|blow| [(true, blow), (false, blow)]) {
        let name = if at_letters { letters.name } else { orders.name };
        let published = || if at_letters { letters.published() } else { orders.published() };
        place.config.workers = workers.next().unwrap();
        let running = place.start(sorting.job(input.folder.path(), true));
        // What the last run left undone comes first.
        sorting.settle(&running, &input);
        let before = published();
        arm(at_letters, blow);
        input.append_to_all(8);
        let error = running.wait().unwrap_err().to_string();
        let word = match blow {
            Blow::Function => "a function had enough".to_owned(),
            Blow::Sink(moment, _) => format!("{moment:?}"),
        };
        assert!(error.contains(&word), "{blow:?} at {name}: {error}");
        match blow {
            Blow::Sink(Moment::Commit, _) => {
                // After the decision, before the commit. The recovery is broken off there, too.
                assert_eq!(published(), before, "{blow:?} at {name}");
                assert!(listed(&place, name) > 0, "{blow:?} at {name}: nothing was decided");
                for moment in [Moment::Recover, Moment::Commit] {
                    arm(at_letters, Blow::Sink(moment, Deed::Refuse));
                    let error = place.fail(sorting.job(input.folder.path(), true)).to_string();
                    assert!(error.contains(&format!("{moment:?} refused")), "{error}");
                    assert_eq!(published(), before, "{moment:?} of the recovery at {name}");
                }
            }
            Blow::Sink(Moment::Committed, _) => {
                assert!(published() > before && listed(&place, name) > 0, "{blow:?} at {name}");
            }
            Blow::Function | Blow::Sink(..) => assert_eq!(published(), before, "{blow:?} at {name}"),
        }
        orders.sink.behave();
        letters.sink.behave();
    }
    place.config.workers = 2;
    let running = place.start(sorting.job(input.folder.path(), true));
    sorting.settle(&running, &input);
    running.drain();
    sorting.check(&input);
    assert_eq!((orders.sink.inner.prepared_parts(), letters.sink.inner.prepared_parts()), (0, 0));
    let manifests = place.manifests();
    assert!(manifests.len() > 2 * blows.len(), "{} checkpoints", manifests.len());
    check_cuts(&manifests);
    place.assert_tidy();
}
