//! A job in real processes, over all its lives; and who looks at what it wrote without being it.

use super::{Schema, with};
use staunch_testing::audit::{Expected, Findings, audit};
use staunch_testing::process::wait;
use staunch_testing::rows::Row;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Longest time that one life may take.
pub const LIFE: Duration = Duration::from_secs(90);

const SIGKILL: i32 = 9;

/// A job, over all its lives.
pub struct Job {
    pub schema: Schema,
    pub expected: Expected,
    /// Records a second, on each worker.
    pub rate: u64,
    pub arguments: Vec<&'static str>,
    /// The address for the job: perhaps through a proxy.
    pub url: String,
    pub bug: Option<&'static str>,
    program: PathBuf,
    dir: tempfile::TempDir,
    lives: u32,
}

impl Job {
    /// One that writes to this server; `None` where its program is not built.
    pub fn new(url: &str) -> Option<Self> {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().with_file_name("examples").join("postgres_victim");
        if !program.exists() {
            println!(
                "SKIPPED: the example postgres_victim is not built (cargo test -p staunch-postgres builds it)"
            );
            return None;
        }
        let schema = Schema::new(url);
        schema.run("CREATE TABLE rows (key bigint, n bigint, sum bigint, split bigint, index bigint)");
        Some(Self {
            url: schema.url.clone(),
            schema,
            expected: Expected { records: 300, splits: 4, keys: 37 },
            rate: 600,
            arguments: Vec::new(),
            bug: None,
            program,
            dir: tempfile::tempdir().unwrap(),
            lives: 0,
        })
    }

    /// Begins a life on two workers.
    pub fn start(&mut self, crash: Option<&str>) -> Child {
        self.lives += 1;
        let log = File::create(self.dir.path().join(format!("log-{}", self.lives))).unwrap();
        let Expected { records, splits, keys } = self.expected;
        let mut command = Command::new(&self.program);
        command
            .args(["--job-name", "victim", "--workers", "2", "--checkpoint-every", "30ms"])
            .args(&self.arguments)
            .arg("--checkpoints")
            .arg(self.checkpoints())
            .env("VICTIM_URL", &self.url)
            .env("VICTIM_TABLE", self.schema.table("rows"))
            .env("VICTIM_RECORDS", records.to_string())
            .env("VICTIM_SPLITS", splits.to_string())
            .env("VICTIM_KEYS", keys.to_string())
            .env("VICTIM_RATE", self.rate.to_string())
            .env("STAUNCH_CRASH_HITS", self.dir.path().join("hits"))
            .env_remove("STAUNCH_CRASH")
            .env_remove("STAUNCH_BUG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(crash) = crash {
            command.env("STAUNCH_CRASH", crash);
        }
        if let Some(bug) = self.bug {
            command.env("STAUNCH_BUG", bug);
        }
        command.spawn().unwrap()
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    /// A life to its end, whatever that is.
    pub fn live(&mut self, crash: Option<&str>) -> ExitStatus {
        let mut child = self.start(crash);
        wait(&mut child, LIFE).unwrap_or_else(|why| panic!("{why}: {}", self.log()))
    }

    /// A life that dies at this point.
    pub fn die(&mut self, crash: &str) {
        let status = self.live(Some(crash));
        assert_eq!(status.signal(), Some(SIGKILL), "{crash}: {status}: {}", self.log());
        let point = crash.split(':').next().unwrap();
        assert!(self.hits(point) > 0, "{point} is passed");
    }

    /// What the last life said.
    pub fn log(&self) -> String {
        self.log_of(self.lives)
    }

    /// What a life said; the first is 1.
    pub fn log_of(&self, life: u32) -> String {
        fs::read_to_string(self.dir.path().join(format!("log-{life}"))).unwrap_or_default()
    }

    /// How often a point was passed, in all lives.
    pub fn hits(&self, point: &str) -> usize {
        let hits = fs::read_to_string(self.dir.path().join("hits")).unwrap_or_default();
        hits.lines().filter(|line| line.split(' ').next() == Some(point)).count()
    }

    /// What everybody sees.
    pub fn rows(&self) -> Vec<Row> {
        let found = self.schema.rows("SELECT key, n, sum, split, index FROM rows");
        let number = |row: &tokio_postgres::Row, at| row.get::<_, i64>(at).cast_unsigned();
        let row = |row: &tokio_postgres::Row| Row {
            key: number(row, 0),
            n: number(row, 1),
            sum: number(row, 2),
            split: u32::try_from(number(row, 3)).unwrap(),
            index: number(row, 4),
        };
        found.iter().map(row).collect()
    }

    pub fn findings(&self) -> Findings {
        audit(&self.expected, &self.rows())
    }

    /// Lives to the end, and looks: each record once, and nothing open or staged anywhere.
    pub fn complete(&mut self, what: &str) {
        self.finish(what);
        self.is_quiet(what);
    }

    /// Lives to the end, and looks: each record once.
    pub fn finish(&mut self, what: &str) {
        let status = self.live(None);
        assert!(status.success(), "{what}: {status}: {}", self.log());
        assert_eq!(self.findings(), Findings::default(), "{what}");
    }

    /// No transaction of the job is open, and nothing is staged.
    pub fn is_quiet(&self, what: &str) {
        self.nothing_is_open(what);
        let staged = self.checkpoints().join("staged/table");
        let names: Vec<_> =
            fs::read_dir(staged).into_iter().flatten().map(|e| e.unwrap().file_name()).collect();
        assert!(names.is_empty(), "{what}: staged {names:?}: {}", self.log());
    }

    /// No transaction of the job is open.
    pub fn nothing_is_open(&self, what: &str) {
        let schema = self.schema.name.clone();
        let left: i64 = with(&self.schema.url, async move |client| {
            let open = "SELECT count(*) FROM pg_stat_activity
                         WHERE application_name LIKE 'staunch %' AND state LIKE 'idle in transaction%' AND strpos(query, $1) > 0";
            client.query_one(open, &[&schema]).await.unwrap().get(0)
        });
        assert_eq!(left, 0, "{what}: open transactions");
    }
}
