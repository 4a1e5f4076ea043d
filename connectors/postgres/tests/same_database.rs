//! The database must be the one that earlier starts wrote to, with all that they committed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_core::Generation;
use staunch_core::error::Kind;
use staunch_core::sink::{Committer, Sink};
use staunch_testing::conformance::sink::{Life, Target, rows};
use staunch_testing::servers;
use support::orders::{Orders, SERVER, orders, refused};
use support::run;

const SINK_TABLES: &str = "CREATE TABLE IF NOT EXISTS made_by_create (a int)";

/// Two starts have written; and what the two tables of the sink were between them.
async fn written_twice(url: &str) -> Life<Orders> {
    let mut life = Life::new(orders(url, &[]));
    for (checkpoint, from) in [(1, 0), (2, 4)] {
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(from..from + 4)).await.unwrap();
        let listed = start.prepare(checkpoint).await.unwrap();
        start.commit(&listed).await.unwrap();
        if checkpoint == 1 {
            life.target.schema.run(
                "CREATE TABLE kept AS SELECT * FROM rows; CREATE TABLE kept_fence AS SELECT * FROM _staunch_fence;
                 CREATE TABLE kept_commits AS SELECT * FROM _staunch_commits",
            );
        }
    }
    life
}

const RESTORE: &str = "TRUNCATE rows, _staunch_fence, _staunch_commits; INSERT INTO rows SELECT * FROM kept;
    INSERT INTO _staunch_fence SELECT * FROM kept_fence; INSERT INTO _staunch_commits SELECT * FROM kept_commits";

#[test]
fn a_database_that_was_replaced_while_the_job_was_stopped_is_refused_and_nothing_is_made_in_it() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        for (what, strike, wanted) in [
            ("removed", "DROP TABLE rows", "there is no such table"),
            ("another one", "DROP TABLE _staunch_fence, _staunch_commits", "it has no mark of this sink"),
            ("emptied", "TRUNCATE rows, _staunch_fence, _staunch_commits", "it has no mark of this sink"),
            ("an older copy", RESTORE, "no start after 1"),
        ] {
            let life = written_twice(&url).await;
            life.target.schema.run(strike);
            let mut context = life.context(3, 0);
            context.taken_over_by = Some(Generation(2));
            let create = SINK_TABLES.replace("made", &format!("{}.made", life.target.schema.name));
            for taking_over in [false, true] {
                let sink = life.target.sink().create(create.clone());
                let mut committer = sink.committer(&context).await.unwrap();
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
            let made = life.target.schema.text("SELECT to_regclass('made_by_create')::text");
            assert_eq!(made, "", "{what}: nothing is made");
            let own = life.target.schema.text("SELECT (to_regclass('_staunch_fence') IS NOT NULL)::text");
            assert_eq!(own == "true", what != "another one", "{what}: no table of the sink is made");
        }
    });
}

#[test]
fn the_same_database_goes_on_after_a_stop_and_another_one_under_another_name_of_the_sink() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let life = written_twice(&url).await;
        let mut context = life.context(3, 0);
        context.taken_over_by = Some(Generation(2));
        life.target.sink().committer(&context).await.unwrap().recover(&[]).await.unwrap();
        let elsewhere = orders(&url, &[]);
        context.sink = "renamed".into();
        // The checkpoint has no sink of this name.
        context.taken_over_by = None;
        elsewhere.sink().committer(&context).await.unwrap().recover(&[]).await.unwrap();
    });
}

/// As after a change to a standby that has not heard of everything.
#[test]
fn a_database_that_goes_back_while_the_job_runs_is_refused_and_nothing_more_is_written() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        // It lacks the newest commit of this start; it lacks the start itself.
        for (strike, wanted) in [
            (
                "DELETE FROM rows WHERE id >= 8; UPDATE _staunch_commits SET checkpoint = 2",
                "has lost checkpoint 3",
            ),
            (RESTORE, "was taken over by start 1 last, and this is start 3"),
        ] {
            let mut life = written_twice(&url).await;
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(8..12)).await.unwrap();
            let listed = start.prepare(3).await.unwrap();
            start.commit(&listed).await.unwrap();
            life.target.schema.run(strike);
            let before = life.visible();
            start.write(rows(12..16)).await.unwrap();
            let listed = start.prepare(4).await.unwrap();
            let why = refused(start.commit(&listed).await);
            assert!(why.contains(wanted), "{why}");
            assert_eq!(life.visible(), before);
        }
    });
}

#[test]
fn a_table_of_another_run_says_how_to_start_over() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(orders(&url, &[]));
        drop(life.start(&[]).await.unwrap());
        life.lineage = "life-2".into();
        let why = life.start(&[]).await.err().unwrap().to_string();
        let from = why.find("`DELETE").unwrap() + 1;
        let remedy = &why[from..from + why[from..].find('`').unwrap()];
        life.target.schema.run(remedy);
        drop(life.start(&[]).await.unwrap());
    });
}
