//! Following tables while things go wrong: killed servers, slots that are lost, tables that change.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch::core::error::Kind;
use staunch_postgres::{Change, Known, Lost, NewColumns, follow};
use staunch_testing::servers::{self, Own};
use std::time::{Duration, Instant};
use support::copy::{Copy, PATIENCE, end_readers};
use support::items::{Items, narrow};

const SERVER: &str = "STAUNCH_POSTGRES";

#[test]
fn a_server_that_is_killed_and_comes_back_is_waited_for_and_read_on() {
    let Some(mut own) = Own::up("postgres") else { return };
    let items = Items::new(&own.address(SERVER));
    items.insert(0, 500);
    let copy = items.copy();
    let running = copy.run();
    running.until_count(500);
    for round in 1..=3 {
        items.insert(round * 1000, round * 1000 + 200);
        own.kill();
        std::thread::sleep(Duration::from_millis(300));
        own.start();
        items.schema.run("UPDATE items SET n = n + 1 WHERE id < 20");
    }
    running.until_count(500 + 600 + 60);
    running.stop();
    items.holds(&copy);
}

#[test]
fn the_server_may_forget_only_what_a_decided_checkpoint_covers_and_does_so_when_it_is_decided() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    let copy = items.copy();
    let running = copy.run();
    items.insert(0, 10);
    running.until_count(10);
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let limit = Instant::now() + PATIENCE;
        while !is() {
            assert!(Instant::now() < limit, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let last = running.out.committed().last().unwrap().lsn;
    let passed = format!("confirmed_flush_lsn > '{last}'");
    until("the slot is told", &|| items.slot(&passed) == "true");
    // Quiet tables, and a log that grows: the slot moves all the same.
    let before = items.slot("confirmed_flush_lsn");
    let moved = format!("confirmed_flush_lsn > '{before}'");
    items.schema.run("CREATE TABLE others (id bigint)");
    until("the slot moves with the log of others", &|| {
        items.schema.run("INSERT INTO others VALUES (1)");
        items.slot(&moved) == "true"
    });
    running.stop();
    items.insert(10, 15);
    let running = copy.run();
    running.until_count(15);
    running.stop();
    items.holds(&copy);
}

#[test]
fn a_large_transaction_is_read_in_parts_and_goes_on_in_the_middle_of_it() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    let mut copy = Copy::new(items.source().decode(narrow));
    let running = copy.run();
    items.insert(0, 1);
    running.until_count(1);
    running.stop();
    items.schema.run(
        "INSERT INTO items SELECT i, 0, repeat('x', 3000) FROM generate_series(1, 6000) i; UPDATE items SET n = 1",
    );
    copy.rate = Some(3000);
    let running = copy.run();
    running.until_count(2000);
    running.stop();
    let read = copy.out.committed().len();
    assert!(read < 12_002, "it was to be stopped in the middle: {read}");
    copy.rate = None;
    let running = copy.run();
    running.until_count(12_002);
    running.stop();
    assert_eq!(copy.out.committed().len(), 12_002);
    assert!(copy.state(&items.table()).iter().map(|row| row.id).eq(0..=6000));
}

#[test]
fn a_slot_that_is_gone_or_was_read_by_others_is_an_error_that_says_what_is_lost() {
    let Some(url) = servers::address(SERVER) else { return };
    for (what, story) in [
        ("SELECT pg_drop_replication_slot(current_schema())", "is gone"),
        (
            "SELECT pg_replication_slot_advance(current_schema(), pg_current_wal_lsn())",
            "somebody else has read it",
        ),
    ] {
        let items = Items::new(&url);
        let mut copy = items.copy();
        let running = copy.run();
        items.insert(0, 5);
        running.until_count(5);
        running.stop();
        items.insert(5, 10);
        items.schema.run(what);
        let error = copy.run().fails();
        assert_eq!(error.kind(), Kind::Job);
        assert!(error.to_string().contains(story) && error.to_string().contains("Lost::GoOn"), "{error}");
        copy.source = items.source().on_lost(Lost::GoOn).rows();
        let running = copy.run();
        running.until("the slot", |_| items.slot("active") == "true");
        items.insert(10, 15);
        running.until_count(10);
        running.stop();
        let ids: Vec<i64> = copy.state(&items.table()).iter().map(|row| row.id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    }
}

#[test]
fn a_slot_that_the_server_gave_up_for_want_of_room_is_an_error_that_says_so() {
    let Some(own) = Own::up("postgres") else { return };
    let items = Items::new(&own.address(SERVER));
    let copy = items.copy();
    let running = copy.run();
    items.insert(0, 5);
    running.until_count(5);
    running.stop();
    items.schema.rows("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    items.schema.run("SELECT pg_reload_conf()");
    let limit = Instant::now() + PATIENCE;
    while items.slot("wal_status") != "lost" {
        assert!(Instant::now() < limit, "{}", items.slot("wal_status"));
        items.schema.run("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))");
        items.schema.run("SELECT pg_switch_wal()");
        items.schema.run("CHECKPOINT");
    }
    let error = copy.run().fails();
    assert_eq!(error.kind(), Kind::Job);
    assert!(error.to_string().contains("max_slot_wal_keep_size"), "{error}");
}

#[test]
fn a_column_that_comes_goes_or_changes_is_named_and_can_be_followed() {
    let Some(url) = servers::address(SERVER) else { return };
    for (change, story) in [
        ("ADD COLUMN more text", "column `more` is new"),
        ("DROP COLUMN n", "column `n` is gone"),
        ("ALTER COLUMN n TYPE numeric", "column `n` is no longer of type bigint"),
    ] {
        let items = Items::new(&url);
        let mut copy = items.copy();
        let running = copy.run();
        items.insert(0, 5);
        running.until_count(5);
        items.schema.run(&format!("ALTER TABLE items {change}"));
        items.schema.run("INSERT INTO items (id, note) VALUES (5, 'new')");
        let error = running.fails();
        assert_eq!(error.kind(), Kind::Job);
        assert!(error.to_string().contains(story), "{error}");
        copy.source = items.source().on_new_columns(NewColumns::Follow).rows();
        let running = copy.run();
        running.until_count(6);
        running.stop();
        assert_eq!(copy.out.committed().len(), 6);
    }
}

#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
struct Large {
    id: i64,
    n: i64,
    note: Known<String>,
}

#[test]
fn a_large_value_that_was_not_sent_is_said_to_be_so_and_never_empty() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    items.schema.run("ALTER TABLE items ALTER COLUMN note SET STORAGE EXTERNAL");
    let run = |source| {
        let (folder, out) = (tempfile::tempdir().unwrap(), staunch::memory::collect::<Change<Large>>());
        let (controls, to): (staunch::prelude::Controls, _) = (Default::default(), out.clone());
        let job = staunch::prelude::Run::new("copy", folder.path()).controls(&controls);
        let source: staunch_postgres::Follow<Change<Large>> = source;
        let thread = std::thread::spawn(move || {
            job.run(move |job| {
                job.source("in", source.clone()).sink("out", to.clone());
                Ok(())
            })
        });
        (folder, out, controls, thread)
    };
    let (_folder, out, controls, thread) = run(items.source().changes());
    let wait = |count: usize| {
        let limit = Instant::now() + PATIENCE;
        while out.committed().len() < count {
            assert!(Instant::now() < limit, "{} of {count}", out.committed().len());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    items.schema.run("INSERT INTO items VALUES (1, 0, repeat('x', 5000))");
    wait(1);
    items.schema.run("UPDATE items SET n = 1");
    wait(2);
    items.schema.run("ALTER TABLE items REPLICA IDENTITY FULL");
    items.schema.run("UPDATE items SET n = 2");
    wait(3);
    controls.stop();
    thread.join().unwrap().unwrap();
    let notes = out.committed().into_iter().map(|change| match change {
        Change::Insert(row) | Change::Update { after: row, .. } => row.note,
        other => panic!("{other:?}"),
    });
    let notes = notes.collect::<Vec<_>>();
    let all = Known::Value("x".repeat(5000));
    assert_eq!(notes, [all.clone(), Known::Unchanged, all]);
    // A field that has no word for it is an error that says what to do.
    items.schema.run("ALTER TABLE items REPLICA IDENTITY DEFAULT");
    let copy = Copy::new(items.source().slot(format!("{}_2", items.schema.name)).rows());
    let running = copy.run();
    running.until_count(1);
    items.schema.run("UPDATE items SET n = 3");
    let error = running.fails().to_string();
    support::copy::drop_slot(&url, &format!("{}_2", items.schema.name));
    assert!(error.contains("column `note`") && error.contains("REPLICA IDENTITY FULL"), "{error}");
}

#[test]
fn all_that_is_missing_is_said_in_one_message() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    items.schema.run(
        "CREATE TABLE keyless (id bigint); CREATE UNLOGGED TABLE dry (id bigint PRIMARY KEY);
                      CREATE VIEW seen AS SELECT 1 AS id",
    );
    let tables = ["items", "keyless", "dry", "seen", "nowhere"].map(|name| items.schema.table(name));
    let copy = Copy::new(follow(&url, tables).slot(&items.schema.name).rows());
    let error = copy.run().fails();
    assert_eq!(error.kind(), Kind::Job);
    let text = error.to_string();
    for part in ["keyless has no primary key", "dry is UNLOGGED", "seen is no table", "there is no table"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(items.slot("slot_name"), "", "nothing was made");
}

#[test]
fn a_session_that_was_ended_by_hand_is_opened_again() {
    let Some(url) = servers::address(SERVER) else { return };
    let items = Items::new(&url);
    let copy = items.copy();
    let running = copy.run();
    items.insert(0, 5);
    running.until_count(5);
    end_readers(&url, &items.schema.name);
    items.insert(5, 10);
    running.until_count(10);
    running.stop();
    items.holds(&copy);
}
