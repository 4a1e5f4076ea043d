//! The generic staged strategy against a target in memory that can be told to fail.
#![allow(clippy::unwrap_used, clippy::panic)]

mod by_hand;

use by_hand::{damaged, run};
use staunch_core::sink::{CommitError, SinkContext, SinkWriter};
use staunch_core::staged::{Applied, Staged, StagedRows, StagedTarget, Token};
use staunch_core::{CheckpointId, Error, Generation, Result, Storage};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::sink::{Life, Row, Target, row, rows};
use staunch_testing::storage::{Action, Fault, MemoryStorage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What is in the target, and how it is to fail.
#[derive(Default, Debug)]
struct Inside {
    lineage: Option<String>,
    fence: Generation0,
    tokens: BTreeMap<u32, CheckpointId>,
    rows: Vec<Row>,
    connections: u32,
    /// The next commit is done, but its answer is lost.
    lose_answer: bool,
    /// Commits carried out.
    applied: u32,
    /// What happens to the target just before the next commit reads its rows.
    meanwhile: Option<Meanwhile>,
    /// Connections that will be refused.
    unreachable: u32,
}

/// Done by somebody else.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// A newer start has taken it over.
    TakenOver,
    /// The commit itself is done: its answer was lost.
    Done,
    /// Nobody can connect for a while.
    Unreachable,
}

#[derive(Debug)]
struct Generation0(Generation);

impl Default for Generation0 {
    fn default() -> Self {
        Self(Generation(0))
    }
}

#[derive(Clone, Default, Debug)]
struct Fake(Arc<Mutex<Inside>>);

impl StagedTarget for Fake {
    type Record = Row;
    type Row = Row;
    type Connection = bool;

    fn row(&self, record: Row) -> Result<Row> {
        Ok(record)
    }

    async fn connect(&self, _context: &SinkContext) -> Result<bool> {
        let mut inside = self.0.lock().unwrap();
        inside.connections += 1;
        if inside.unreachable > 0 {
            inside.unreachable -= 1;
            return Err(Error::external("nobody answers"));
        }
        Ok(true)
    }

    async fn fence(&self, _connection: &mut bool, context: &SinkContext) -> Result<()> {
        let mut inside = self.0.lock().unwrap();
        if inside.lineage.get_or_insert_with(|| context.lineage.clone()) != &context.lineage {
            return Err(Error::job("another run"));
        }
        if inside.fence.0 > context.generation {
            return Err(Error::job("fenced"));
        }
        inside.fence.0 = context.generation;
        Ok(())
    }

    async fn committed(
        &self,
        connection: &mut bool,
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        assert!(*connection, "a connection that saw an error is used again");
        if self.0.lock().unwrap().fence.0 != context.generation {
            return Err(CommitError::Refused(Error::job("fenced")));
        }
        Ok(self.0.lock().unwrap().tokens.get(&instance).copied())
    }

    async fn newest(
        &self,
        _connection: &mut bool,
        _context: &SinkContext,
    ) -> Result<Option<CheckpointId>, CommitError> {
        Ok(self.0.lock().unwrap().tokens.values().max().copied())
    }

    async fn apply(
        &self,
        connection: &mut bool,
        token: &Token,
        rows: StagedRows<Row>,
    ) -> Result<Applied, CommitError> {
        let mut inside = self.0.lock().unwrap();
        if inside.fence.0 != token.generation {
            return Err(CommitError::Refused(Error::job("fenced")));
        }
        assert!(inside.tokens.get(&token.instance) < Some(&token.checkpoint));
        *connection = false;
        match inside.meanwhile.take() {
            Some(Meanwhile::TakenOver) => inside.fence.0 = Generation(token.generation.0 + 1),
            Some(Meanwhile::Done) => drop(inside.tokens.insert(token.instance, token.checkpoint)),
            Some(Meanwhile::Unreachable) => inside.unreachable = 1,
            None => {}
        }
        let rows = rows.collect::<Result<Vec<Row>, CommitError>>()?;
        inside.rows.extend(rows);
        inside.tokens.insert(token.instance, token.checkpoint);
        inside.applied += 1;
        if std::mem::take(&mut inside.lose_answer) {
            return Err(CommitError::Retry(Error::external("connection lost")));
        }
        *connection = true;
        Ok(Applied::Now)
    }
}

impl Target for Fake {
    type Record = Row;
    type Sink = Staged<Fake>;

    fn sink(&self) -> Self::Sink {
        Staged::new(self.clone())
    }

    fn record(&self, n: u64) -> Row {
        row(n)
    }

    fn visible(&self) -> Vec<Row> {
        self.0.lock().unwrap().rows.clone()
    }

    fn lose_next_answer(&self, _: &MemoryStorage) -> Can {
        self.0.lock().unwrap().lose_answer = true;
        Can::Done(())
    }
}

staunch_testing::sink_conformance!(Fake::default());

fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_lost_answer_is_asked_for_on_a_new_connection_and_the_rows_are_there_once() {
    run(async {
        let mut life = Life::new(Fake::default());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..10)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        life.target.0.lock().unwrap().lose_answer = true;
        assert!(matches!(start.commit(&listed).await, Err(CommitError::Retry(_))));
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible(), rows(0..10));
        let inside = life.target.0.lock().unwrap();
        // Check, recovery, and the commit that is asked for again; what saw the lost answer is thrown away.
        assert_eq!((inside.connections, inside.applied), (3, 2));
    });
}

#[test]
fn an_epoch_of_many_chunks_is_one_commit() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let big: Vec<Row> = (0..30).map(|id| Row { id, name: "x".repeat(1 << 20) }).collect();
        start.write(big.clone()).await.unwrap();
        assert_eq!(life.leftovers(), 3, "full chunks do not wait in memory");
        let listed = start.prepare(1).await.unwrap();
        assert_eq!((listed.len(), listed[0].records, life.leftovers()), (1, 30, 4));
        start.commit(&listed).await.unwrap();
        assert_eq!((life.visible(), life.leftovers()), (big, 0));
        assert_eq!(life.target.0.lock().unwrap().applied, 1);
    });
}

#[test]
fn a_damaged_chunk_is_refused_and_nothing_of_the_epoch_is_written() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write((0..9).map(|id| Row { id, name: "x".repeat(1 << 20) }).collect()).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        let names = life.storage.names().unwrap();
        let good: Vec<Vec<u8>> = names.iter().map(|name| life.storage.get(name).unwrap()).collect();
        // The second of two: the first has been read when it is found out.
        let mut forms = damaged(&good[1], &good[..1]);
        forms.push(("empty".into(), Vec::new()));
        for (what, bad) in forms {
            life.storage.put(&names[1], &bad).unwrap();
            let why = refused(start.commit(&listed).await);
            assert!(why.contains(&names[1]) && why.contains("is damaged"), "{what}: {why}");
            assert!(why.contains("9 records"), "{what}: {why}");
            assert!(life.visible().is_empty(), "{what}");
        }
        life.storage.lose(&names[1]).unwrap();
        assert!(refused(start.commit(&listed).await).contains(&names[1]));
        assert!(life.visible().is_empty());
        life.storage.put(&names[1], &good[1]).unwrap();
        start.commit(&listed).await.unwrap();
        assert_eq!(life.visible().len(), 9);
    });
}

/// Its successor has committed what was staged and deleted it.
#[test]
fn a_commit_whose_staged_rows_are_gone_says_first_who_has_taken_the_target_over() {
    run(async {
        for meanwhile in [Meanwhile::TakenOver, Meanwhile::Done, Meanwhile::Unreachable] {
            let mut life = Life::new(Fake::default());
            life.instances = 1;
            let mut start = life.start(&[]).await.unwrap();
            start.write(rows(0..10)).await.unwrap();
            let listed = start.prepare(1).await.unwrap();
            life.storage.lose(&life.storage.names().unwrap()[0]).unwrap();
            life.target.0.lock().unwrap().meanwhile = Some(meanwhile);
            let first = start.commit(&listed).await;
            match meanwhile {
                Meanwhile::TakenOver => assert_eq!(refused(first), "fenced"),
                Meanwhile::Done => assert!(first.is_ok(), "{first:?}"),
                Meanwhile::Unreachable => {
                    let Err(CommitError::Retry(error)) = first else { panic!("not asked again: {first:?}") };
                    let said = error.to_string();
                    assert!(said.contains("not found") && said.contains("nobody answers"), "{said}");
                    assert!(refused(start.commit(&listed).await).contains("10 records"));
                }
            }
            assert_eq!(life.target.0.lock().unwrap().applied, 0, "{meanwhile:?}");
        }
    });
}

#[test]
fn a_target_with_output_of_a_checkpoint_that_the_log_lost_is_refused() {
    run(async {
        let mut life = Life::new(Fake::default());
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..10)).await.unwrap();
        let listed = start.prepare(7).await.unwrap();
        start.commit(&listed).await.unwrap();
        life.next_checkpoint = 8;
        drop(life.start(&[]).await.unwrap());
        // As if the record of checkpoint 7 were gone: its id would be used again, and taken for committed.
        life.next_checkpoint = 7;
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("checkpoint 7") && why.contains("from a backup"), "{why}");
    });
}

/// Nobody asks for the token of the third instance any more, and it alone tells of checkpoint 7.
#[test]
fn a_checkpoint_that_the_log_lost_is_noticed_also_with_fewer_instances() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.instances = 3;
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..9)).await.unwrap();
        let all = start.prepare(6).await.unwrap();
        start.commit(&all).await.unwrap();
        start.writers[2].write(rows(9..12)).await.unwrap();
        let third = start.prepare(7).await.unwrap();
        start.commit(&third).await.unwrap();
        let tokens = [(0, 6), (1, 6), (2, 7)].map(|(instance, token)| (instance, CheckpointId(token)));
        assert_eq!(life.target.0.lock().unwrap().tokens, BTreeMap::from(tokens));
        life.instances = 1;
        life.next_checkpoint = 8;
        drop(life.start(&[]).await.unwrap());
        life.next_checkpoint = 7;
        let why = life.start(&[]).await.err().unwrap().to_string();
        assert!(why.contains("checkpoint 7") && why.contains("from a backup"), "{why}");
    });
}

#[test]
fn errors_of_the_checkpoint_storage_are_told_apart() {
    run(async {
        let mut life = Life::new(Fake::default());
        let mut start = life.start(&[]).await.unwrap();
        life.storage.fail(Action::Put);
        start.write(vec![row(0)]).await.unwrap();
        assert!(start.writers[0].cut(CheckpointId(1)).unwrap().await.is_err());
        life.storage.heal();
        let mut start = life.start(&[]).await.unwrap();
        start.write(rows(0..10)).await.unwrap();
        let listed = start.prepare(1).await.unwrap();
        life.storage.fail(Action::Get);
        assert!(matches!(start.commit(&listed).await, Err(CommitError::Retry(_))));
        life.storage.heal();
        // What cannot be deleted is committed all the same, and removed at the next start.
        life.storage.fail(Action::Delete);
        start.commit(&listed).await.unwrap();
        assert_eq!((life.visible(), life.leftovers()), (rows(0..10), 2));
        assert!(life.start(&[]).await.is_err());
        life.storage.heal();
        let mut again = life.start(&listed).await.unwrap();
        again.commit(&listed).await.unwrap();
        assert_eq!((life.visible(), life.leftovers()), (rows(0..10), 0));
    });
}

#[test]
fn a_checkpoint_out_of_order_is_refused_and_not_taken_for_committed() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        start.write(vec![row(1)]).await.unwrap();
        let first = start.prepare(1).await.unwrap();
        start.write(vec![row(2)]).await.unwrap();
        let second = start.prepare(2).await.unwrap();
        start.commit(&second).await.unwrap();
        let why = refused(start.commit(&first).await);
        assert!(why.contains("out of order"), "{why}");
        let mut twice = second.clone();
        twice[0].payload["chunks"][0]["name"] = "staged/out/other-g1".into();
        refused(start.commit(&twice).await);
        start.commit(&second).await.unwrap();
    });
}

/// One call with more checkpoints of an instance than a committer remembers from call to call.
#[test]
fn a_long_backlog_is_not_out_of_order_when_its_commit_is_asked_for_again() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.instances = 1;
        let mut start = life.start(&[]).await.unwrap();
        let mut backlog = Vec::new();
        for checkpoint in 1..=200 {
            start.write(vec![row(u64::from(checkpoint))]).await.unwrap();
            backlog.extend(start.prepare(checkpoint).await.unwrap());
        }
        assert_eq!(backlog.len(), 200);
        // The first call gets as far as the last checkpoint.
        let last = life.storage.names().unwrap().pop().unwrap();
        let reads_last = move |action: Action, name: &str| action == Action::Get && name == last;
        life.storage.on_call(move |action, name| reads_last(action, name).then_some(Fault::Fails));
        assert!(matches!(start.commit(&backlog).await, Err(CommitError::Retry(_))));
        assert_eq!(life.visible(), rows(1..=199));
        life.storage.heal();
        for call in ["after a failure", "after a success"] {
            if let Err(error) = start.commit(&backlog).await {
                panic!("{call}: {error:?}");
            }
            assert_eq!(life.visible(), rows(1..=200), "{call}");
        }
        assert_eq!(life.target.0.lock().unwrap().applied, 200);
    });
}

#[test]
fn blobs_of_a_newer_start_are_left_alone() {
    run(async {
        let mut life = Life::new(Fake::default());
        life.starts = 7;
        let mut newer = life.start(&[]).await.unwrap();
        newer.write(vec![row(0)]).await.unwrap();
        newer.prepare(1).await.unwrap();
        // The fence of this target is broken, so that only the names protect the blobs.
        life.target.0.lock().unwrap().fence.0 = Generation(0);
        life.starts = 3;
        assert!(life.start(&[]).await.unwrap().removed.is_empty());
        assert_eq!(life.leftovers(), 1);
    });
}
