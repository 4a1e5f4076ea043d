//! The PostgreSQL sink at a real server: every crash window, cut connections, killed servers, and what tables refuse.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde::Serialize;
use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, Committer, Sink};
use staunch_postgres::{Change, Table, changes, table};
use staunch_testing::conformance::sink::{Life, Row, Target, check_all, row, rows};
use staunch_testing::servers;
use std::time::Duration;
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

/// The other one waits first of all, so that the server ends the sink's transaction.
#[test]
fn a_deadlock_is_asked_again() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &["id"]));
        life.target.schema.run("INSERT INTO rows VALUES (1, 'old'), (2, 'old')");
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(1..3)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let table = life.target.schema.table("rows");
        let begin =
            format!("SET deadlock_timeout = '1h'; BEGIN; UPDATE {table} SET name = 'other' WHERE id = 2");
        other.batch_execute(&begin).await.unwrap();
        let update = format!("UPDATE {table} SET name = 'other' WHERE id = 1");
        let schema = &life.target.schema;
        let crossing = async {
            until_it_waits(schema).await;
            other.batch_execute(&update).await.unwrap();
            other.batch_execute("COMMIT").await.unwrap();
        };
        let (committed, ()) = tokio::join!(start.commit(&listed), crossing);
        match committed {
            Err(CommitError::Retry(error)) => assert!(error.to_string().contains("40P01"), "{error}"),
            other => panic!("{other:?}"),
        }
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(1..3));
    });
}

/// Waits until a session of the sink that writes to this schema waits for a lock.
async fn until_it_waits(schema: &Schema) {
    let waiting = format!(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND strpos(query, '{}') > 0
                           AND application_name LIKE 'staunch %')::text",
        schema.name
    );
    for _ in 0..6_000 {
        if schema.text(&waiting) == "true" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no session waits for a lock");
}

#[test]
fn a_serialization_failure_is_asked_again() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        life.target.schema.run(
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$;
             CREATE TRIGGER fails BEFORE INSERT ON rows EXECUTE FUNCTION fails()",
        );
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        match start.commit(&listed).await {
            Err(CommitError::Retry(error)) => assert!(error.to_string().contains("40001"), "{error}"),
            other => panic!("{other:?}"),
        }
        life.target.schema.run("DROP TRIGGER fails ON rows");
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..4));
    });
}

/// As the engine does it: the first committer recovers, each publishes what its instances wrote.
#[test]
fn what_one_instance_wrote_is_committed_while_that_of_another_waits() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &["id"]));
        assert_eq!(Sink::commit_lanes(&life.target.sink()), 1, "the last row of a key stays");
        assert_eq!(Sink::commit_lanes(&Life::new(orders(&url, &[])).target.sink()), 4);
        assert_eq!(Sink::commit_lanes(&life.target.sink().commit_lanes(2)), 2);
        life.target.schema.run("INSERT INTO rows VALUES (0, 'old')");
        let mut start = life.start(&[]).await.unwrap();
        let mut lane = life.target.sink().committer(&life.context(1, 0)).await.unwrap();
        for checkpoint in 1..4 {
            start.write(rows(0..2)).await.unwrap();
            let listed = start.prepare(checkpoint).await.unwrap();
            assert_eq!(listed.iter().map(|c| c.instance).collect::<Vec<_>>(), [0, 1]);
            let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            let table = life.target.schema.table("rows");
            other
                .batch_execute(&format!("BEGIN; SELECT FROM {table} WHERE id = 0 FOR UPDATE"))
                .await
                .unwrap();
            let second = async {
                until_it_waits(&life.target.schema).await;
                lane.commit(&listed[1..]).await.unwrap();
                other.batch_execute("ROLLBACK").await.unwrap();
            };
            let (first, ()) = tokio::join!(start.commit(&listed[..1]), second);
            first.unwrap();
            assert_eq!(life.visible(), rows(0..2));
            life.target.schema.run("UPDATE rows SET name = 'old'");
        }
        let mut next = life.start(&[]).await.unwrap();
        start.write(rows(0..2)).await.unwrap();
        let listed = start.prepare(4).await.unwrap();
        let why = [refused(start.commit(&listed[..1]).await), refused(lane.commit(&listed[1..]).await)];
        assert!(why.iter().all(|why| why.contains("was taken over by start 2")), "{why:?}");
        next.commit(&listed).await.unwrap();
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
