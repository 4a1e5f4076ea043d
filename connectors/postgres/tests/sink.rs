//! The PostgreSQL sink at a real server: every crash window, cut connections, killed servers, and what tables refuse.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde::Serialize;
use staunch_core::error::Kind;
use staunch_core::sink::CommitError;
use staunch_postgres::{Change, Table, changes, table};
use staunch_testing::conformance::sink::{Life, Row, Target, check_all, row, rows};
use staunch_testing::servers;
use support::orders::{SERVER, orders, refused};
use support::{Schema, run};

#[test]
fn inserts_hold_in_every_crash_window() {
    let Some(url) = servers::address(SERVER) else { return };
    let report = check_all(move || orders(&url, &[]));
    assert!(report.violations().is_empty(), "{report}");
}

#[test]
fn upserts_hold_in_every_crash_window() {
    let Some(url) = servers::address(SERVER) else { return };
    let report = check_all(move || orders(&url, &["id"]));
    assert!(report.violations().is_empty(), "{report}");
}

#[test]
fn a_connection_that_is_cut_anywhere_in_a_commit_loses_and_doubles_nothing() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.proxy.clone();
        let mut checkpoint = 0;
        for at in (0..2_000).step_by(41) {
            checkpoint += 1;
            start.write(rows(u64::from(checkpoint) * 4..u64::from(checkpoint) * 4 + 4)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            proxy.cut_after(at);
            for _ in 0..100 {
                match start.commit(&listed).await {
                    Ok(()) => break,
                    Err(CommitError::Retry(_)) => {
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await
                    }
                    Err(CommitError::Refused(error)) => panic!("cut after {at} bytes: {error}"),
                }
            }
            proxy.cut_after(-1);
            let all = 4..u64::from(checkpoint) * 4 + 4;
            assert_eq!(life.visible(), rows(all), "cut after {at} bytes");
        }
        assert!(proxy.cuts() > 20, "{} cuts", proxy.cuts());
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_every_row_once() {
    let Some(mut own) = servers::Own::up("postgres") else { return };
    let url = own.address(SERVER);
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        let mut start = life.start(&[]).await.unwrap();
        for checkpoint in 1..4 {
            let from = u64::from(checkpoint) * 4;
            start.write(rows(from..from + 4)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            if checkpoint == 2 {
                start.commit(&listed).await.unwrap();
            }
            own.kill();
            match start.commit(&listed).await {
                Err(CommitError::Retry(_)) => {}
                other => panic!("a server that is away must be asked again: {other:?}"),
            }
            own.start();
            start.commit(&listed).await.unwrap();
            assert_eq!(life.visible(), rows(4..from + 4));
        }
    });
}

/// A process that is stopped in the middle of a commit keeps its locks; the next start must not wait for it for ever.
#[test]
fn a_start_ends_the_session_of_an_older_one_that_holds_its_locks() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        let mut first = life.start(&[]).await.unwrap();
        first.write(rows(0..4)).await.unwrap();
        let listed = first.prepare(1).await.unwrap();
        let schema = life.target.schema.name.clone();
        let (stuck, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let name = "SELECT application_name FROM pg_stat_activity
                    WHERE application_name LIKE 'staunch %' AND strpos(query, $1) > 0 LIMIT 1";
        let name: String = stuck.query_one(name, &[&schema]).await.unwrap().get(0);
        let begin = format!(
            "SET application_name = '{name}'; BEGIN; SELECT * FROM {schema}._staunch_fence FOR SHARE"
        );
        stuck.batch_execute(&begin).await.unwrap();
        let mut second = life.start(&listed).await.unwrap();
        assert!(stuck.batch_execute("COMMIT").await.is_err(), "the stuck session is ended");
        second.commit(&listed).await.unwrap();
        // Its own session was ended too: that it is fenced it hears on the next one.
        assert!(matches!(first.commit(&listed).await, Err(CommitError::Retry(_))));
        let why = refused(first.commit(&listed).await);
        assert!(why.contains("was taken over by start 2"), "{why}");
        assert_eq!(life.visible(), rows(0..4));
    });
}

#[test]
fn a_table_that_is_locked_is_asked_again() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let table = life.target.schema.table("rows");
        other.batch_execute(&format!("BEGIN; LOCK TABLE {table}")).await.unwrap();
        match start.commit(&listed).await {
            Err(CommitError::Retry(error)) => assert!(error.to_string().contains("55P03"), "{error}"),
            other => panic!("{other:?}"),
        }
        other.batch_execute("ROLLBACK").await.unwrap();
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..4));
    });
}

#[test]
fn a_row_that_breaks_a_constraint_is_named_and_stays_staged() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        life.target.schema.run("ALTER TABLE rows ADD PRIMARY KEY (id)");
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(1), row(2), row(1)]).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let why = refused(start.commit(&listed).await);
        assert!(why.contains("(id)=(1)") && why.contains("stays staged"), "{why}");
        assert!(life.visible().is_empty());
        life.target.schema.run("ALTER TABLE rows DROP CONSTRAINT rows_pkey");
        let mut second = life.start(&listed).await.unwrap();
        second.commit(&listed).await.unwrap();
        assert_eq!(life.visible().len(), 3);
    });
}

#[test]
fn a_user_that_is_not_let_in_and_a_database_that_is_not_there_are_mistakes_of_the_job() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let life = Life::new(orders(&url, &[]));
        let sink = table::<Row>(format!("{}_is_not_there", url.trim_end_matches('/')), "rows");
        use staunch_core::sink::{Committer, Sink};
        let mut committer = sink.committer(&life.context(1, 0)).await.unwrap();
        let error = committer.recover(&[]).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Job, "{error}");
        let sink = table::<Row>(&url, life.target.schema.table("nothing"));
        let mut committer = sink.committer(&life.context(1, 0)).await.unwrap();
        let error = committer.recover(&[]).await.unwrap_err();
        assert!(error.kind() == Kind::Job && error.to_string().contains("does not exist"), "{error}");
    });
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Item {
    id: i64,
    note: Option<&'static str>,
}

/// A table that mirrors what happens to another one.
struct Mirror(Schema);

impl Target for Mirror {
    type Record = Change<Item>;
    type Sink = Table<Item, staunch_postgres::Changes>;

    fn sink(&self) -> Self::Sink {
        changes(&self.0.url, self.0.table("items")).key(["id"])
    }

    fn record(&self, n: u64) -> Change<Item> {
        Change::Insert(item(n as i64, None))
    }

    fn visible(&self) -> Vec<Change<Item>> {
        Vec::new()
    }
}

fn item(id: i64, note: Option<&'static str>) -> Item {
    Item { id, note }
}

#[test]
fn changes_leave_behind_what_they_would_one_after_the_other() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let schema = Schema::new(&url);
        schema.run("CREATE TABLE items (id bigint PRIMARY KEY, note text UNIQUE, kept text DEFAULT 'new')");
        schema.run("INSERT INTO items VALUES (1, 'a', 'old'), (2, 'b', 'old'), (3, 'c', 'old')");
        let mut life = Life::new(Mirror(schema));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let update = |id, note| Change::Update { before: None, after: item(id, note) };
        start
            .write(vec![
                update(1, Some("A")),
                Change::Delete(item(2, None)),
                Change::Insert(item(2, Some("again"))),
                Change::Update { before: Some(item(3, None)), after: item(4, Some("moved")) },
                Change::Insert(item(5, Some("gone soon"))),
                Change::Delete(item(5, None)),
            ])
            .await
            .unwrap();
        let listed = start.prepare(1).await.unwrap();
        start.commit(&listed).await.unwrap();
        let all = "SELECT string_agg(id || ' ' || note || ' ' || kept, ', ' ORDER BY id) FROM items";
        assert_eq!(life.target.0.text(all), "1 A old, 2 again new, 4 moved new");
        // In one statement after another 4 takes the note that 1 gave up; at once they would collide.
        start.write(vec![update(1, None), update(4, Some("A")), update(1, Some("moved"))]).await.unwrap();
        let listed = start.prepare(2).await.unwrap();
        start.commit(&listed).await.unwrap();
        assert_eq!(life.target.0.text(all), "1 moved old, 2 again new, 4 A new");
    });
}
