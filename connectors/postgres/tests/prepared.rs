//! The sink with prepared transactions at the real server: every crash window, lost answers, and what others prepared.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use staunch_core::error::Kind;
use staunch_core::sink::{CommitError, Committer, Sink, SinkContext};
use staunch_postgres::{PreparedTable, table};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Life, Row, Target, check_all, rows};
use staunch_testing::servers;
use staunch_testing::storage::MemoryStorage;
use support::orders::{Orders, SERVER, orders, refused};
use support::{Schema, run};

/// [`Orders`], prepared.
struct Prepared(Orders);

impl Prepared {
    /// Of this table: transactions of other tests are none of ours.
    fn transactions(&self) -> Vec<String> {
        self.0.schema.prepared()
    }
}

fn prepared(url: &str) -> Prepared {
    Prepared(orders(url, &[]))
}

impl Target for Prepared {
    type Record = Row;
    type Sink = PreparedTable<Row>;

    fn sink(&self) -> Self::Sink {
        self.0.sink().prepared()
    }

    fn record(&self, n: u64) -> Row {
        self.0.record(n)
    }

    fn visible(&self) -> Vec<Row> {
        self.0.visible()
    }

    fn leftovers(&self, _: &MemoryStorage) -> usize {
        self.transactions().len()
    }

    fn lose_prepared(&self, _: &MemoryStorage) -> Can {
        for name in self.transactions() {
            self.0.schema.roll_back(&name);
        }
        Can::Done(())
    }

    fn lose_next_answer(&self, storage: &MemoryStorage) -> Can {
        self.0.lose_next_answer(storage)
    }
}

#[test]
fn prepared_transactions_hold_in_every_crash_window() {
    let Some(url) = servers::address(SERVER) else { return };
    let report = check_all(move || prepared(&url));
    assert!(report.violations().is_empty(), "{report}");
}

#[test]
fn a_connection_that_is_cut_anywhere_in_a_commit_loses_and_doubles_nothing() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(prepared(&url));
        let mut start = life.start(&[]).await.unwrap();
        let proxy = life.target.0.proxy.clone();
        for (checkpoint, at) in (1..).zip((0..1_200).step_by(41)) {
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
            assert_eq!(life.visible(), rows(4..u64::from(checkpoint) * 4 + 4), "cut after {at} bytes");
            assert!(life.target.transactions().is_empty());
        }
        assert!(proxy.cuts() > 15, "{} cuts", proxy.cuts());
    });
}

/// A vote that nobody hears, and one that did not happen: the next start rolls back what there is.
#[test]
fn a_connection_that_is_cut_anywhere_in_a_vote_leaves_nothing_behind_after_the_next_start() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(prepared(&url));
        life.instances = 1;
        let proxy = life.target.0.proxy.clone();
        let mut votes = [0, 0];
        for at in (0..2_400).step_by(97) {
            let mut start = life.start(&[]).await.unwrap();
            proxy.cut_after(at);
            let voted = match start.write(rows(0..4)).await {
                Ok(()) => start.prepare(1).await.is_ok(),
                Err(_) => false,
            };
            proxy.cut_after(-1);
            votes[usize::from(voted)] += 1;
            drop(start);
        }
        let mut last = life.start(&[]).await.unwrap();
        assert!(life.target.transactions().is_empty() && life.visible().is_empty());
        last.write(rows(0..4)).await.unwrap();
        let listed = last.prepare(1).await.unwrap();
        last.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..4));
        assert!(votes[0] > 5 && votes[1] > 0, "{votes:?}");
    });
}

#[test]
fn a_server_that_is_killed_keeps_what_is_prepared_and_commits_it_once() {
    let Some(mut own) = servers::Own::up("postgres") else { return };
    let url = own.address(SERVER);
    run(async {
        let mut life = Life::new(prepared(&url));
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        own.kill();
        assert!(matches!(start.commit(&listed).await, Err(CommitError::Retry(_))));
        own.start();
        assert_eq!((life.target.transactions().len(), life.visible().len()), (2, 0));
        start.commit(&listed).await.unwrap();
        own.kill();
        own.start();
        drop(start);
        let mut next = life.start(&listed).await.unwrap();
        next.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..4));
        assert!(life.target.transactions().is_empty());
    });
}

#[test]
fn prepared_transactions_of_others_are_left_alone() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(prepared(&url));
        let mut other = Life::new(prepared(&url));
        let foreign = format!("somebody's {}", life.target.0.schema.name);
        let insert = format!(
            "BEGIN; INSERT INTO rows VALUES (77, 'theirs'); PREPARE TRANSACTION '{}'",
            foreign.replace('\'', "''")
        );
        life.target.0.schema.run(&insert);
        for life in [&mut life, &mut other] {
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(0..4)).await.unwrap();
            drop(start.prepare(1).await.unwrap());
        }
        assert_eq!(life.target.transactions().len(), 3);
        // Neither is its own, nor listed.
        let start = life.start(&[]).await.unwrap();
        assert!(
            start.removed.len() == 2 && start.removed[0].contains("rolled back staunch_"),
            "{:?}",
            start.removed
        );
        assert_eq!(life.target.transactions(), std::slice::from_ref(&foreign));
        assert_eq!(
            other.target.transactions().len(),
            2,
            "another sink's of the same names, in another table"
        );
        drop(other.start(&[]).await.unwrap());
        life.target.0.schema.roll_back(&foreign);
    });
}

#[test]
fn a_transaction_that_somebody_rolled_back_is_a_loss_that_is_said() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let mut life = Life::new(prepared(&url));
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..4)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        life.target.lose_prepared(&life.storage.clone());
        let why = refused(start.commit(&listed).await);
        assert!(
            why.contains("4 records of checkpoint 1 of sink `out`") && why.contains("neither prepared nor"),
            "{why}"
        );
    });
}

#[test]
fn a_server_without_room_for_prepared_transactions_is_refused_at_the_start() {
    let Some(mut own) = servers::Own::up("postgres") else { return };
    let url = own.address(SERVER);
    let schema = Schema::new(&url);
    schema.run("CREATE TABLE rows (id bigint, name text)");
    support::with(&url, async |client| {
        client.batch_execute("ALTER SYSTEM SET max_prepared_transactions = 5").await.unwrap();
    });
    own.kill();
    own.start();
    let check = |instances| {
        run(async {
            let mut context = SinkContext::alone("out");
            context.instances = instances;
            let sink = table::<Row>(&url, schema.table("rows")).prepared();
            sink.committer(&context).await.unwrap().check().await
        })
    };
    check(1).unwrap();
    let error = check(2).unwrap_err();
    assert_eq!(error.kind(), Kind::Job, "{error}");
    assert!(error.to_string().contains("at least 6") && error.to_string().contains("it is 5"), "{error}");
}

#[test]
fn rows_that_are_written_by_key_cannot_be_prepared_and_the_error_says_why() {
    let Some(url) = servers::address(SERVER) else { return };
    run(async {
        let orders = orders(&url, &["id"]);
        let sink = orders.sink().prepared();
        let error = sink.committer(&SinkContext::alone("out")).await.unwrap().check().await.unwrap_err();
        assert!(error.kind() == Kind::Job && error.to_string().contains("is for inserts"), "{error}");
    });
}
