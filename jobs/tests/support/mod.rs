//! A place of its own for each test: input, output, checkpoints, and the command that runs a job on them.

pub mod observer;
pub mod random;

use jobs::batch;
use jobs::output::{self, Difference};
use jobs::running::Running;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Longest that a job may take to end.
pub const LONGEST: Duration = Duration::from_secs(60);

/// A job and the directories it works on, removed at the end of the test.
pub struct Case {
    folder: TempDir,
    program: PathBuf,
    /// Where `--input` points to.
    pub input: PathBuf,
}

/// An output directory into which nothing can be published for now.
pub struct Blocked {
    mark: PathBuf,
    kept: PathBuf,
}

impl Blocked {
    /// From now on it can again.
    pub fn end(self) {
        fs::rename(self.kept, self.mark).expect("the owner's file can be put back");
    }
}

/// How a job has ended.
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to standard error.
    pub log: String,
}

impl Case {
    /// `flight_delays` on the real data.
    pub fn flights() -> Self {
        Self::new(env!("CARGO_BIN_EXE_flight_delays"), data())
    }

    /// `flight_delays` on this text.
    pub fn flights_in(text: &str) -> Self {
        Self::flights().with_input("flights.csv", text)
    }

    /// `flight_delays` on the real data in several files of a directory; which row goes into which file is told
    /// by the row's number and the number of rows.
    pub fn flights_in_files(files: usize, file_of: fn(usize, usize) -> usize) -> Self {
        let mut case = Self::flights();
        case.input = case.path("input");
        fs::create_dir(&case.input).expect("a new directory can be made");
        let mut lines = data_text().lines();
        let header = lines.next().expect("the data has a header");
        let rows: Vec<&str> = lines.collect();
        let mut texts = vec![format!("{header}\n"); files];
        for (number, row) in rows.iter().enumerate() {
            let text = &mut texts[file_of(number, rows.len())];
            text.push_str(row);
            text.push('\n');
        }
        for (number, text) in texts.iter().enumerate() {
            fs::write(case.input.join(format!("{number}.csv")), text).expect("the file can be written");
        }
        case
    }

    /// `word_count` on this text.
    pub fn words(text: &str) -> Self {
        Self::new(env!("CARGO_BIN_EXE_word_count"), PathBuf::new()).with_input("words.txt", text)
    }

    /// The same job on a text of its own.
    pub fn with_input(mut self, name: &str, text: &str) -> Self {
        self.input = self.path(name);
        fs::write(&self.input, text).expect("the input can be written");
        self
    }

    /// Any program with the same arguments.
    pub fn new(program: impl AsRef<OsStr>, input: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        Self { folder, program: program.as_ref().into(), input }
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where `--output` points to.
    pub fn output(&self) -> PathBuf {
        self.path("output")
    }

    /// Where `--checkpoints` points to.
    pub fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints")
    }

    /// The command, with further arguments separated by spaces. Of an argument that is given twice, the last one counts.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        let given: Vec<&str> = arguments.split_whitespace().collect();
        let defaults = [
            ("--input", self.input.clone()),
            ("--output", self.output()),
            ("--checkpoints", self.checkpoints()),
        ];
        for (name, value) in defaults.iter().filter(|(name, _)| !given.contains(name)) {
            command.arg(name).arg(value);
        }
        command.args(["--log", "json"]).args(given).env_remove("RUST_LOG").current_dir(self.folder.path());
        command
    }

    /// Starts the job.
    pub fn start(&self, arguments: &str) -> Running {
        Running::start(&mut self.command(arguments)).expect("the job can be started")
    }

    /// Runs the job until it ends by itself.
    pub fn run(&self, arguments: &str) -> Ended {
        ended(&mut self.start(arguments))
    }

    /// Runs the job to its end, which must be a good one.
    pub fn complete(&self, arguments: &str) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments}: {}", ended.log);
        ended
    }

    /// Runs the job, which must be refused or fail, with this exit code and these words in the error.
    pub fn refused(&self, arguments: &str, code: i32, words: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(code), "{arguments}: {}", ended.log);
        let error = ended.log.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
        for word in words {
            assert!(error.contains(word), "{arguments}: no {word:?} in the error: {error}");
        }
        assert!(!error.contains("panicked"), "{arguments}: a panic instead of an error: {error}");
        error
    }

    /// The committed lines, sorted.
    pub fn lines(&self) -> Vec<String> {
        output::committed_lines(&self.output()).expect("the output can be read")
    }

    /// The committed files must be the batch result of the input, as a multiset of lines.
    pub fn assert_batch_result(&self) {
        let expected = batch::flight_delays(&self.input).expect("the input can be read").lines;
        assert_same(&expected, &self.lines());
    }

    /// From now on every commit fails and is tried again, because nobody can read whose the output directory is.
    pub fn block_commits(&self) -> Blocked {
        let (mark, kept, link) = (self.output().join(".staunch"), self.path("mark"), self.path("link"));
        fs::copy(&mark, &kept).expect("the owner's file can be copied");
        // A directory, and at one stroke: a directory without the file would be somebody else's.
        symlink(self.folder.path(), &link).expect("a link can be made");
        fs::rename(&link, &mark).expect("the owner's file can be replaced");
        Blocked { mark, kept }
    }

    /// Waits until lines are committed while the job runs.
    pub fn wait_for_lines(&self, running: &Running, at_least: usize) {
        let enough = || (self.lines().len() >= at_least).then_some(());
        let found = jobs::running::until(LONGEST, enough);
        assert!(found.is_some(), "not {at_least} lines in {LONGEST:?}:\n{}", running.log().join("\n"));
    }
}

/// Both must be the same multiset of lines.
pub fn assert_same(expected: &[String], found: &[String]) {
    let difference = Difference::between(expected, found);
    let Difference { lost, doubled, wrong } = &difference;
    assert!(
        difference.is_none(),
        "{} lost {:?}, {} doubled {:?}, {} wrong {:?}",
        lost.len(),
        lost.first(),
        doubled.len(),
        doubled.first(),
        wrong.len(),
        wrong.first()
    );
}

/// Waits for the end of a job.
pub fn ended(running: &mut Running) -> Ended {
    let status = running.wait(LONGEST).expect("the job ends");
    Ended { code: status.code(), log: running.log().join("\n") }
}

/// Sends a signal.
pub fn signal(running: &Running, signal: libc::c_int) {
    let id = libc::pid_t::try_from(running.id()).expect("process ids are small");
    // SAFETY: kill(2) takes no pointers; the process is our child and not waited for yet.
    let sent = unsafe { libc::kill(id, signal) };
    assert_eq!(sent, 0, "the signal cannot be sent");
}

/// Waits until the log of a job has an entry that begins like this.
pub fn wait_for_log(running: &Running, message: &str) -> serde_json::Value {
    let found = jobs::running::until(LONGEST, || running.logged(message));
    found.unwrap_or_else(|| panic!("no {message:?} in the log:\n{}", running.log().join("\n")))
}

/// An example; `cargo test` builds it unless told not to.
pub fn example(name: &str) -> Option<PathBuf> {
    let jobs = PathBuf::from(env!("CARGO_BIN_EXE_flight_delays"));
    let example = jobs.with_file_name("examples").join(name);
    if !example.exists() {
        skipped(&format!("the example {name} is not built (cargo test -p jobs builds it)"));
        return None;
    }
    Some(example)
}

/// The real data.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-2013-01.csv")
}

/// The real data as text.
pub fn data_text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| fs::read_to_string(data()).expect("the data can be read"))
}

/// Says, whatever happens to the output of tests, why a test did not run.
pub fn skipped(reason: &str) {
    println!("SKIPPED: {reason}");
}

/// Says what was measured.
pub fn measured(what: &str) {
    println!("MEASURED: {what}");
}
