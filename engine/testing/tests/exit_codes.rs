//! What a supervisor is told by a real process whose database does not do as it should: 1, start it again; 2, a person has
//! to look.
#![allow(clippy::unwrap_used, clippy::panic)]

use rusqlite::Connection;
use staunch_testing::attack::{Case, Fault, Life as Attacked, SKIPPED, cases, learn, run_all};
use staunch_testing::audit::Expected;
use staunch_testing::process::{kill, wait};
use staunch_testing::victim::{Life, Sinks, Victim};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

const LIFE: Duration = Duration::from_secs(60);
const TABLE: &str =
    "CREATE TABLE rows (key INTEGER, n INTEGER, sum INTEGER, split INTEGER, \"index\" INTEGER";

/// One whose only sink is a database that is there already.
fn victim(dir: &Path, table: &str) -> Victim {
    let expected = Expected { records: 500, splits: 4, keys: 97 };
    let mut victim = Victim::new(Path::new(env!("CARGO_BIN_EXE_victim")), dir, expected);
    victim.sinks = Sinks::Table;
    std::fs::create_dir_all(victim.database().parent().unwrap()).unwrap();
    open(&victim).execute_batch(&format!("PRAGMA journal_mode = WAL; {table}")).unwrap();
    victim
}

fn open(victim: &Victim) -> Connection {
    let database = Connection::open(victim.database()).unwrap();
    database.busy_timeout(LIFE).unwrap();
    database
}

fn impatient() -> Life {
    Life { workers: 2, commit_timeout: Some("500ms"), ..Life::default() }
}

fn live(victim: &mut Victim, life: &Life) -> ExitStatus {
    wait(&mut victim.start(life).unwrap(), LIFE).unwrap_or_else(|why| panic!("{why}: {}", victim.last_log()))
}

fn error(victim: &Victim) -> String {
    let log = victim.last_log();
    log.lines().rev().find(|line| line.starts_with("error:")).unwrap_or(&log).to_owned()
}

fn complete(victim: &mut Victim) {
    let status = live(victim, &Life { workers: 3, ..Life::default() });
    assert!(status.success(), "{}", victim.last_log());
    victim.judge().unwrap();
}

#[test]
fn a_database_that_is_busy_at_the_start_ends_the_job_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let mut victim = victim(dir.path(), &format!("{TABLE})"));
    let other = open(&victim);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(live(&mut victim, &impatient()).code(), Some(1), "{}", victim.last_log());
    assert!(error(&victim).contains("locked"), "{}", error(&victim));
    drop(other);
    complete(&mut victim);
}

#[test]
fn a_database_that_stays_busy_at_a_commit_ends_the_job_with_1_and_the_next_start_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let mut victim = victim(dir.path(), &format!("{TABLE})"));
    victim.rate = Some(2_000);
    let mut child = victim.start(&impatient()).unwrap();
    let other = open(&victim);
    let began = Instant::now();
    // Once something is committed, the next commit is held up.
    while other.query_row("SELECT NOT EXISTS (SELECT 1 FROM rows)", [], |row| row.get(0)).unwrap() {
        if began.elapsed() > LIFE {
            let _ = kill(&mut child);
            panic!("nothing is committed: {}", victim.last_log());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let status = wait(&mut child, LIFE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", victim.last_log());
    assert!(error(&victim).contains("(--commit-timeout)"), "{}", error(&victim));
    drop(other);
    victim.rate = None;
    complete(&mut victim);
}

#[test]
fn rows_that_the_table_refuses_for_good_end_the_job_with_2_and_are_published_once_the_table_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut victim = victim(dir.path(), &format!("{TABLE}, CHECK (n < 5))"));
    for _ in 0..2 {
        assert_eq!(live(&mut victim, &impatient()).code(), Some(2), "{}", victim.last_log());
        let error = error(&victim);
        assert!(error.contains("CHECK constraint failed") && error.contains("change the table"), "{error}");
    }
    let change = format!(
        "BEGIN; ALTER TABLE rows RENAME TO narrow; {TABLE}); INSERT INTO rows SELECT * FROM narrow; \
         DROP TABLE narrow; COMMIT"
    );
    open(&victim).execute_batch(&change).unwrap();
    complete(&mut victim);
}

/// Operations on the database and what is beside it.
fn of_the_database(case: &Case, fault: Fault) -> bool {
    case.strikes.iter().all(|strike| strike.fault == fault && strike.place.contains("rows.db"))
}

#[test]
fn an_error_of_the_disk_and_a_lack_of_descriptors_at_the_database_end_the_job_with_1_or_are_borne() {
    if let Some(why) = SKIPPED {
        println!("SKIPPED: {why}");
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_victim"));
    let learned = [Attacked::First, Attacked::Later]
        .map(|life| learn(life, 2, program).unwrap_or_else(|why| panic!("{why}")));
    let all = cases(&learned, 1_000_000);
    let mut chosen = Vec::new();
    for fault in [Fault::Error, Fault::Descriptors] {
        let some = all.iter().filter(|case| of_the_database(case, fault)).step_by(3).take(8).cloned();
        let before = chosen.len();
        chosen.extend(some);
        assert!(chosen.len() > before, "{fault} is there");
    }
    let wanted = chosen.len();
    let results = run_all(chosen, 2, program, |_, _, _| {});
    let failures: Vec<String> =
        results.failures().map(|(case, broken)| format!("{}: {broken}", case.options())).collect();
    assert!(failures.is_empty(), "{} of {wanted} failed:\n{}", failures.len(), failures.join("\n\n"));
}
