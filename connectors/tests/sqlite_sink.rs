//! The SQLite sink in every crash window, with real databases, and what only databases can do wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::run;
use serde::Serialize;
use staunch_connectors::sqlite::{self, Table};
use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, Sink, SinkWriter};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Life, Row, Target, committable, row, rows};
use staunch_testing::storage::MemoryStorage;
use tempfile::TempDir;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, name TEXT NOT NULL)";

struct Database(TempDir);

fn database() -> Database {
    Database(TempDir::new().unwrap())
}

impl Database {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("out.db")
    }

    fn open(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    fn run(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap();
    }
}

impl Target for Database {
    type Record = Row;
    type Sink = Table<Row>;

    fn sink(&self) -> Table<Row> {
        sqlite::table(self.path(), "rows").create(CREATE)
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        let database = self.open();
        let mut rows = database.prepare("SELECT id, name FROM rows").unwrap();
        let rows =
            rows.query_map([], |r| Ok(Row { id: r.get::<_, i64>(0)? as u64, name: r.get(1)? })).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        Can::Not("the database is in the process, and its answers are not lost")
    }
}

staunch_testing::sink_conformance!(database());

/// The same by upsert. In its table a row that is written twice looks like one that is written once, so triggers
/// note each row that is written, and that is what the suite sees.
struct Upserted(Database);

/// So few that nearly every row replaces another one.
const SLOTS: u64 = 3;
const CREATE_UPSERTED: &str = "
    CREATE TABLE IF NOT EXISTS latest (slot INTEGER PRIMARY KEY, number INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS journal (slot, number);
    CREATE TRIGGER IF NOT EXISTS inserted AFTER INSERT ON latest
        BEGIN INSERT INTO journal VALUES (new.slot, new.number); END;
    CREATE TRIGGER IF NOT EXISTS updated AFTER UPDATE ON latest
        BEGIN INSERT INTO journal VALUES (new.slot, new.number); END;";

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Change {
    slot: u64,
    number: u64,
}

impl Target for Upserted {
    type Record = Change;
    type Sink = Table<Change>;

    fn sink(&self) -> Table<Change> {
        sqlite::table(self.0.path(), "latest").create(CREATE_UPSERTED).upsert(["slot"])
    }

    fn record(&self, n: u64) -> Change {
        Change { slot: n % SLOTS, number: n }
    }

    fn visible(&self) -> Vec<Change> {
        let database = self.0.open();
        let one_row_a_slot =
            "SELECT (SELECT count(*) FROM latest) = (SELECT count(DISTINCT slot) FROM journal)
             AND NOT EXISTS (SELECT slot, number FROM latest EXCEPT SELECT slot, number FROM journal)";
        let holds: bool = database.query_row(one_row_a_slot, [], |r| r.get(0)).unwrap();
        assert!(holds, "the table must have one row for each slot, one that was written");
        let mut journal = database.prepare("SELECT slot, number FROM journal").unwrap();
        let changes = journal.query_map([], |r| {
            Ok(Change { slot: r.get::<_, i64>(0)? as u64, number: r.get::<_, i64>(1)? as u64 })
        });
        let changes = changes.unwrap();
        changes.map(Result::unwrap).collect()
    }

    fn lose_next_answer(&self, storage: &MemoryStorage) -> Can {
        self.0.lose_next_answer(storage)
    }
}

mod by_upsert {
    use super::*;
    staunch_testing::sink_conformance!(Upserted(database()));
}

fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

async fn fails(sink: &impl Sink, life: &Life<Database>) -> String {
    use staunch_core::sink::Committer;
    let mut committer = sink.committer(&life.context(1, 0)).await.unwrap();
    committer.recover(&[]).await.unwrap_err().to_string()
}

#[test]
fn the_database_keeps_the_token_of_each_instance() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(9).await.unwrap();
        start.commit(&listed).await.unwrap();
        let sql =
            "SELECT group_concat(instance || ':' || checkpoint || ':' || lineage) FROM _staunch_commits";
        let tokens: String = life.target.open().query_row(sql, [], |r| r.get(0)).unwrap();
        assert_eq!(tokens, "0:9:life-1,1:9:life-1");
    });
}

#[test]
fn a_checkpoint_that_the_log_lost_is_noticed_also_with_fewer_instances() {
    run(async {
        let mut life = Life::new(database());
        life.instances = 3;
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..9)).await.unwrap();
        let all = start.prepare(6).await.unwrap();
        start.commit(&all).await.unwrap();
        start.writers[2].write(rows(9..12)).await.unwrap();
        let third = start.prepare(7).await.unwrap();
        start.commit(&third).await.unwrap();
        // Another sink's tokens say nothing about this one.
        life.target.run(
            "INSERT INTO _staunch_commits (job, sink, instance, lineage, generation, checkpoint)
             SELECT job, 'other', instance, lineage, generation, 99 FROM _staunch_commits",
        );
        life.instances = 1;
        life.next_checkpoint = 8;
        drop(life.start(&[]).await.unwrap());
        life.next_checkpoint = 7;
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("checkpoint 7") && why.contains("from a backup"), "{why}");
        assert_eq!(life.visible(), rows(0..12));
    });
}

#[test]
fn an_upsert_replaces_rows_by_key() {
    #[derive(Serialize)]
    struct Total {
        customer: &'static str,
        minute: u32,
        total: Option<f64>,
        tags: Vec<u32>,
    }
    run(async {
        let life = Life::new(database());
        let sink = sqlite::table::<Total>(life.target.path(), "totals")
            .create("CREATE TABLE IF NOT EXISTS totals (customer, minute, Total, tags, UNIQUE (customer, minute))")
            .upsert(["customer", "minute"]);
        let mut committer = sink.committer(&life.context(1, 0)).await.unwrap();
        use staunch_core::sink::Committer;
        committer.recover(&[]).await.unwrap();
        let mut writer = sink.writer(&life.context(1, 0)).await.unwrap();
        let total = |customer, minute, total| Total { customer, minute, total, tags: vec![1] };
        for (checkpoint, value) in [(1, Some(1.5)), (2, None), (3, Some(2.5))] {
            writer.write(vec![total("a", 1, value), total("b", 1, value)]).await.unwrap();
            let prepared =
                writer.cut(staunch_core::CheckpointId(checkpoint)).unwrap().await.unwrap().remove(0);
            committer.commit(&[committable(checkpoint, 0, 1, &prepared).unwrap()]).await.unwrap();
        }
        let sql = "SELECT count(*), sum(total), max(tags) FROM totals";
        let found: (u32, f64, String) =
            life.target.open().query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
        assert_eq!(found, (2, 5.0, "[1]".to_owned()));
    });
}

#[test]
fn what_is_wrong_with_the_table_is_said_at_the_start() {
    run(async {
        let life = Life::new(database());
        let path = life.target.path();
        let why = fails(&sqlite::table::<Row>(&path, "rows"), &life).await;
        assert!(why.contains("cannot open") && why.contains(".create"), "{why}");
        assert!(!path.exists(), "no empty database is left behind");
        let why = fails(&sqlite::table::<Row>(&path, "rows").create("CREATE nonsense"), &life).await;
        assert!(why.contains("syntax error"), "{why}");
        life.target.run(CREATE);
        let why = fails(&sqlite::table::<Row>(&path, "other"), &life).await;
        assert!(why.contains("`other`") && why.contains("does not exist"), "{why}");
        let why = fails(&sqlite::table::<Row>(&path, "rows").upsert(["name"]), &life).await;
        assert!(why.contains("unique index"), "{why}");
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        let why = fails(&sqlite::table::<Row>(&path, "rows"), &life).await;
        assert!(why.contains("not a database"), "{why}");
    });
}

#[test]
fn a_record_that_does_not_fit_the_table_is_refused_before_it_is_staged() {
    run(async {
        let mut life = Life::new(database());
        life.target.run("CREATE TABLE rows (id, title)");
        let mut start = life.start(&[]).await.unwrap();
        let why = start.writers[0].write(vec![row(0)]).await.unwrap_err().to_string();
        assert!(why.contains("no column `name`") && why.contains("id, title"), "{why}");
        let sink = sqlite::table::<Row>(life.target.path(), "rows").upsert(["minute"]);
        let why = sink.writer(&life.context(1, 0)).await.unwrap().write(vec![row(0)]).await.unwrap_err();
        assert!(why.to_string().contains("no field `minute`"), "{why}");
    });
}

#[test]
fn a_row_that_the_database_refuses_is_named_and_none_of_its_epoch_is_written() {
    run(async {
        let mut life = Life::new(database());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(1), row(2), row(1)]).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let why = refused(start.commit(&listed).await);
        assert!(
            why.contains("UNIQUE") && why.contains("Integer(1)") && why.contains("stays staged"),
            "{why}"
        );
        assert!(life.visible().is_empty());
        // Somebody changes the table, and the next start commits what is staged.
        life.target.run("DROP TABLE rows; CREATE TABLE rows (id, name)");
        let mut second = life.start(&listed).await.unwrap();
        second.commit(&listed).await.unwrap();
        assert_eq!(life.visible().len(), 3);
    });
}

#[test]
fn a_locked_database_is_asked_again() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let other = life.target.open();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        match start.commit(&listed).await {
            Err(CommitError::Retry(error)) => assert!(error.to_string().contains("locked"), "{error}"),
            other => panic!("{other:?}"),
        }
        other.execute_batch("ROLLBACK").unwrap();
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..4));
    });
}

/// What is done to the files of a database behind the sink's back, and what it says then.
const STRIKES: [(&str, fn(&std::path::Path), &str); 3] = [
    ("removed", |path| std::fs::remove_file(path).unwrap(), "was removed"),
    (
        "replaced by an empty one",
        |path| {
            std::fs::rename(path, path.with_extension("old")).unwrap();
            rusqlite::Connection::open(path).unwrap().execute_batch(CREATE).unwrap();
        },
        "was replaced",
    ),
    (
        "replaced by a copy",
        |path| {
            std::fs::copy(path, path.with_extension("new")).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        },
        "was replaced",
    ),
];

#[test]
fn a_database_that_is_gone_or_another_one_is_refused_before_the_vote() {
    for (strike, act, wanted) in STRIKES {
        run(async {
            let mut life = Life::new(database());
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(0..4)).await.unwrap();
            act(&life.target.path());
            let error = start.prepare(1).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Job, "{strike}: {error}");
            assert!(error.to_string().contains(wanted) && error.to_string().contains("out.db"), "{error}");
            // An epoch without rows is refused too: those before it are in the old file.
            assert!(start.prepare(2).await.is_err());
        });
    }
}

#[test]
fn a_database_that_is_gone_or_another_one_takes_no_commit() {
    for (strike, act, wanted) in STRIKES {
        run(async {
            let mut life = Life::new(database());
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(0..4)).await.unwrap();
            let first = start.prepare(1).await.unwrap();
            start.commit(&first).await.unwrap();
            start.write(rows(4..8)).await.unwrap();
            let second = start.prepare(2).await.unwrap();
            act(&life.target.path());
            for _ in 0..2 {
                let why = refused(start.commit(&second).await);
                assert!(why.contains(wanted), "{strike}: {why}");
            }
            assert!(strike != "removed" || !life.target.path().exists(), "no new database is made");
        });
    }
}

#[test]
fn a_write_ahead_log_that_is_removed_is_noticed_and_the_next_start_publishes_what_is_missing() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        start.commit(&first).await.unwrap();
        start.write(rows(4..8)).await.unwrap();
        let second = start.prepare(2).await.unwrap();
        std::fs::remove_file(life.target.0.path().join("out.db-wal")).unwrap();
        let why = refused(start.commit(&second).await);
        assert!(why.contains("out.db-wal was removed"), "{why}");
        drop(start);
        let both = [first, second].concat();
        let mut next = life.start(&both).await.unwrap();
        next.commit(&both).await.unwrap();
        assert_eq!(life.visible(), rows(0..8));
    });
}

#[test]
fn a_database_that_went_back_to_an_older_copy_is_refused() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        start.commit(&first).await.unwrap();
        life.target.run("DELETE FROM rows; DELETE FROM _staunch_commits");
        start.write(rows(4..8)).await.unwrap();
        let second = start.prepare(2).await.unwrap();
        let why = refused(start.commit(&second).await);
        assert!(why.contains("has lost checkpoint 1"), "{why}");
        assert!(life.visible().is_empty());
    });
}

#[test]
fn tables_and_places_that_cannot_hold_output_are_refused_at_the_start() {
    run(async {
        let life = Life::new(database());
        let path = life.target.path();
        life.target.run("CREATE TABLE rows (id, name); CREATE VIEW seen AS SELECT * FROM rows");
        for (table, wanted) in [
            ("seen", "takes no rows"),
            ("sqlite_master", "takes no rows"),
            ("_staunch_fence", "its own tables"),
            ("ro\0ws", "does not exist"),
            ("", "does not exist"),
            ("main.rows", "does not exist"),
        ] {
            let why = fails(&sqlite::table::<Row>(&path, table), &life).await;
            assert!(why.contains(wanted), "{table:?}: {why}");
        }
        let temporary = sqlite::table::<Row>(&path, "passing").create("CREATE TEMP TABLE passing (id, name)");
        assert!(fails(&temporary, &life).await.contains("does not exist"));
        for nowhere in ["", ":memory:"] {
            let why = fails(&sqlite::table::<Row>(nowhere, "rows").create(CREATE), &life).await;
            assert!(why.contains("in memory"), "{why}");
        }
    });
}

#[test]
fn a_busy_database_at_the_start_is_an_error_of_the_outside() {
    run(async {
        let life = Life::new(database());
        life.target.run("PRAGMA journal_mode = DELETE; CREATE TABLE rows (id, name)");
        let other = life.target.open();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let sink = sqlite::table::<Row>(life.target.path(), "rows").create(CREATE);
        let mut committer = sink.committer(&life.context(1, 0)).await.unwrap();
        use staunch_core::sink::Committer;
        let error = committer.recover(&[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::External, "{error}");
        assert!(error.to_string().contains("locked"), "{error}");
    });
}

#[test]
fn a_replaced_database_is_refused() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        life.target.run("DELETE FROM _staunch_fence");
        let why = refused(start.commit(&listed).await);
        assert!(why.contains("replaced"), "{why}");
    });
}

/// A database that was written to by two starts, the second of which decided the newest checkpoint.
async fn written_twice() -> (Life<Database>, std::path::PathBuf) {
    let mut life = Life::new(database());
    let copy = life.target.0.path().join("older.db");
    for (checkpoint, range) in [(1, 0..4), (2, 4..8)] {
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(range)).await.unwrap();
        let listed = start.prepare(checkpoint).await.unwrap();
        start.commit(&listed).await.unwrap();
        drop(start);
        if checkpoint == 1 {
            life.target.run("PRAGMA wal_checkpoint(TRUNCATE)");
            std::fs::copy(life.target.path(), &copy).unwrap();
        }
    }
    life.target.run("PRAGMA wal_checkpoint(TRUNCATE)");
    (life, copy)
}

#[test]
fn a_database_that_was_replaced_while_the_job_was_stopped_is_refused_and_nothing_is_made_in_it() {
    run(async {
        type Strike = fn(&std::path::Path, &std::path::Path);
        let strikes: [(&str, Strike, &str); 3] = [
            ("removed", |_, _| {}, "there is no such file"),
            (
                "another one",
                |path, _| drop(rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE a (b)")),
                "it has no mark of this sink",
            ),
            (
                "an older copy",
                |path, copy| assert!(std::fs::copy(copy, path).unwrap() > 0),
                "no start after 1",
            ),
        ];
        for (what, strike, wanted) in strikes {
            let (life, copy) = written_twice().await;
            let path = life.target.path();
            for name in ["out.db", "out.db-wal", "out.db-shm"] {
                let _ = std::fs::remove_file(path.with_file_name(name));
            }
            strike(&path, &copy);
            let before = std::fs::read(&path).ok();
            let mut context = life.context(3, 0);
            context.taken_over_by = Some(staunch_core::Generation(2));
            use staunch_core::sink::Committer;
            for taking_over in [false, true] {
                let mut committer = life.target.sink().committer(&context).await.unwrap();
                let refused = match taking_over {
                    false => committer.check().await,
                    true => committer.recover(&[]).await.map(drop),
                };
                let error = refused.unwrap_err();
                assert_eq!(error.kind(), Kind::Job, "{what}: {error}");
                let text = error.to_string();
                assert!(
                    text.contains(wanted) && text.contains("give the sink another name"),
                    "{what}: {text}"
                );
            }
            let has_table = before.is_some() && {
                let found = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'rows')";
                life.target.open().query_row(found, [], |r| r.get(0)).unwrap()
            };
            assert_eq!(has_table, what == "an older copy", "{what}: no table is made");
            assert!(before.is_some() || !path.exists(), "{what}: no database is made");
        }
    });
}

#[test]
fn the_same_database_goes_on_after_a_stop_and_another_one_under_another_name_of_the_sink() {
    run(async {
        let (life, _) = written_twice().await;
        let mut context = life.context(3, 0);
        context.taken_over_by = Some(staunch_core::Generation(2));
        use staunch_core::sink::Committer;
        life.target.sink().committer(&context).await.unwrap().recover(&[]).await.unwrap();
        let elsewhere = database();
        context.sink = "renamed".into();
        // The checkpoint has no sink of this name.
        context.taken_over_by = None;
        elsewhere.sink().committer(&context).await.unwrap().recover(&[]).await.unwrap();
    });
}

#[test]
fn a_table_of_another_run_says_how_to_start_over() {
    run(async {
        let mut life = Life::new(database());
        drop(life.start(&[]).await.unwrap());
        life.lineage = "life-2".into();
        let why = life.start(&[]).await.err().unwrap().to_string();
        let from = why.find("`DELETE").unwrap() + 1;
        let remedy = &why[from..from + why[from..].find('`').unwrap()];
        life.target.run(remedy);
        drop(life.start(&[]).await.unwrap());
    });
}

/// A token that is no number of a checkpoint was not written by us.
#[test]
fn a_token_of_nonsense_is_an_error_and_nothing_is_written() {
    run(async {
        let mut life = Life::new(database());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..10)).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        start.commit(&first).await.unwrap();
        start.write(rows(10..20)).await.unwrap();
        let second = start.prepare(2).await.unwrap();
        for nonsense in ["'abc'", "-1", "4294967296", "x'00ff'", "1.5", "9223372036854775807"] {
            life.target.run(&format!("UPDATE _staunch_commits SET checkpoint = {nonsense}"));
            let error = start.commit(&second).await.unwrap_err().to_string();
            assert!(error.contains("out.db"), "{nonsense}: {error}");
            assert_eq!(life.visible(), rows(0..10), "{nonsense}");
        }
        life.target.run("UPDATE _staunch_commits SET checkpoint = 1");
        start.commit(&second).await.unwrap();
        assert_eq!(life.visible(), rows(0..20));
    });
}
