//! A simulated target outside: what is committed in it, seen by everybody at once, and checked at every
//! commit. Two sinks write into targets like this: one that prepares at the target, and a staged one.

use super::fate::{FAILED_EFFECT, Fate, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;
use staunch::core::sink::{CommitError, Committer, Prepared, Sink, SinkContext, SinkWriter};
use staunch::core::staged::{Applied, StagedRows, StagedTarget, Token, lost_checkpoint};
use staunch::core::{CheckpointId, Committable, Error, Generation, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Checks rows as they become visible; says what is wrong.
pub type Observer<R> = Box<dyn FnMut(&[R]) -> Result<(), String> + Send>;

/// A target; clones are the same one. It outlives every process.
pub struct Target<R>(Arc<Mutex<State<R>>>);

impl<R> Clone for Target<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct State<R> {
    fence: Generation,
    prepared: BTreeMap<String, Vec<R>>,
    committed: BTreeSet<String>,
    tokens: BTreeMap<u32, CheckpointId>,
    /// Newest checkpoint of committed parts.
    newest: Option<CheckpointId>,
    visible: Vec<R>,
    /// Each piece of what is visible: the checkpoint that it was made for, and its length.
    pieces: Vec<(CheckpointId, usize)>,
    observer: Observer<R>,
    /// Makes an observer that has seen nothing yet.
    observe: Box<dyn Fn() -> Observer<R> + Send>,
    wrong: Option<String>,
}

impl<R> Target<R> {
    /// An empty target, watched by the observers that this makes: another one after each going back.
    pub fn new(observe: impl Fn() -> Observer<R> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(State {
            fence: Generation(0),
            prepared: BTreeMap::new(),
            committed: BTreeSet::new(),
            tokens: BTreeMap::new(),
            newest: None,
            visible: Vec::new(),
            pieces: Vec::new(),
            observer: observe(),
            observe: Box::new(observe),
            wrong: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the observer found wrong first.
    pub fn wrong(&self) -> Option<String> {
        self.state().wrong.clone()
    }

    /// Rows that everybody sees.
    pub fn visible(&self) -> u64 {
        self.state().visible.len() as u64
    }

    /// The rows that everybody sees, in the order of their commits.
    pub fn rows(&self) -> Vec<R>
    where
        R: Clone,
    {
        self.state().visible.clone()
    }

    /// The same rows, each piece that became visible at once by itself.
    pub fn pieces(&self) -> Vec<Vec<R>>
    where
        R: Clone,
    {
        let state = self.state();
        let mut rows = state.visible.iter().cloned();
        state.pieces.iter().map(|(_, length)| rows.by_ref().take(*length).collect()).collect()
    }

    /// Takes away what was made for checkpoints after this one, and watches what is left anew. Returns how many rows
    /// are gone.
    pub fn go_back(&self, checkpoint: Option<u32>) -> usize {
        let mut state = self.state();
        let before = state.visible.len();
        let (pieces, mut rows) =
            (std::mem::take(&mut state.pieces), std::mem::take(&mut state.visible).into_iter());
        let mut kept = Vec::new();
        for (of, length) in pieces {
            let piece: Vec<R> = rows.by_ref().take(length).collect();
            if checkpoint.is_some_and(|checkpoint| of.0 <= checkpoint) {
                kept.push((of, piece));
            }
        }
        state.observer = (state.observe)();
        for (of, piece) in kept {
            state.show(of, piece);
        }
        before - state.visible.len()
    }

    /// Prepared parts that nobody sees.
    pub fn leftovers(&self) -> usize {
        self.state().prepared.len()
    }
}

impl<R> State<R> {
    fn show(&mut self, checkpoint: CheckpointId, rows: Vec<R>) {
        if let Err(wrong) = (self.observer)(&rows) {
            self.wrong.get_or_insert(wrong);
        }
        self.pieces.push((checkpoint, rows.len()));
        self.visible.extend(rows);
    }

    fn fence_of(&self, generation: Generation) -> Result<(), CommitError> {
        if generation < self.fence {
            let why = format!("fenced by start {}", self.fence.0);
            return Err(CommitError::Refused(Error::external(why)));
        }
        Ok(())
    }
}

/// What a process knows of a target.
pub struct Client<R> {
    target: Target<R>,
    fate: Fate,
}

impl<R> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), fate: self.fate.clone() }
    }
}

impl<R> Client<R> {
    /// The process with this fate, before this target.
    pub fn new(target: Target<R>, fate: Fate) -> Self {
        Self { target, fate }
    }

    /// An effect at the target, after a while.
    async fn effect<A>(
        &self,
        what: String,
        work: impl FnOnce(&mut State<R>) -> Result<A, CommitError>,
    ) -> Result<A, CommitError> {
        let pause = self.fate.below(8);
        if pause > 4 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        } else if pause > 2 {
            tokio::task::yield_now().await;
        }
        let verdict = self.fate.decide(format_args!("{what}"));
        let done = if verdict.takes_place() { Some(work(&mut self.target.state())) } else { None };
        match (verdict, done) {
            (Verdict::Done, Some(done)) => done,
            (verdict, _) => Err(CommitError::Retry(Error::external(format!("{FAILED_EFFECT} {verdict:?}")))),
        }
    }
}

fn plain(error: CommitError) -> Error {
    match error {
        CommitError::Retry(error) | CommitError::Refused(error) => error,
    }
}

/// A sink that prepares at the target.
pub struct Direct<R>(pub Client<R>);

/// Writes for [`Direct`].
pub struct DirectWriter<R> {
    client: Client<R>,
    context: SinkContext,
    rows: Vec<R>,
}

/// Publishes for [`Direct`].
pub struct DirectCommitter<R> {
    client: Client<R>,
    context: SinkContext,
}

impl<R: Clone + Send + 'static> Sink for Direct<R> {
    type Record = R;
    type Writer = DirectWriter<R>;
    type Committer = DirectCommitter<R>;

    async fn writer(&self, context: &SinkContext) -> Result<DirectWriter<R>> {
        Ok(DirectWriter { client: self.0.clone(), context: context.clone(), rows: Vec::new() })
    }

    async fn committer(&self, context: &SinkContext) -> Result<DirectCommitter<R>> {
        Ok(DirectCommitter { client: self.0.clone(), context: context.clone() })
    }
}

impl<R: Clone + Send + 'static> SinkWriter for DirectWriter<R> {
    type Record = R;

    async fn write(&mut self, records: Vec<R>) -> Result<()> {
        if self.client.fate.below(4) == 0 {
            tokio::time::sleep(Duration::from_millis(1 + self.client.fate.below(3))).await;
        }
        self.rows.extend(records);
        Ok(())
    }

    fn cut(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        let rows = std::mem::take(&mut self.rows);
        let SinkContext { sink, instance, generation, .. } = &self.context;
        let part = format!("{sink}-{checkpoint}-{instance}-g{}", generation.0);
        let (client, generation) = (self.client.clone(), *generation);
        Ok(async move {
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let records = rows.len() as u64;
            let prepare = |state: &mut State<R>| {
                state.fence_of(generation)?;
                state.prepared.insert(part.clone(), rows);
                Ok(())
            };
            client.effect(format!("prepare {part} of {records} rows"), prepare).await.map_err(plain)?;
            Ok(vec![Prepared { records, payload: serde_json::Value::String(part) }])
        })
    }
}

fn part_of(committable: &Committable) -> Result<String, CommitError> {
    let part = committable.payload.as_str().map(str::to_owned);
    part.ok_or_else(|| CommitError::Refused(Error::internal("a committable names no part")))
}

impl<R: Clone + Send + 'static> Committer for DirectCommitter<R> {
    async fn check(&mut self) -> Result<()> {
        let SinkContext { sink, next_checkpoint, .. } = &self.context;
        let check = |state: &mut State<R>| match state.newest.filter(|newest| newest >= next_checkpoint) {
            Some(lost) => Err(CommitError::Refused(Error::job(lost_checkpoint(sink, lost)))),
            None => Ok(()),
        };
        self.client.effect(format!("check {sink}"), check).await.map_err(plain)
    }

    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        let generation = self.context.generation;
        let keep: Result<BTreeSet<String>, CommitError> = listed.iter().map(part_of).collect();
        let keep = keep.map_err(plain)?;
        self.client
            .effect(format!("recover {}", self.context.sink), |state| {
                state.fence_of(generation)?;
                state.fence = generation;
                let unlisted = |part: &&String| !keep.contains(*part);
                let removed: Vec<String> = state.prepared.keys().filter(unlisted).cloned().collect();
                state.prepared.retain(|part, _| keep.contains(part));
                Ok(removed)
            })
            .await
            .map_err(plain)
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        for committable in committables {
            let part = part_of(committable)?;
            let generation = self.context.generation;
            self.client
                .effect(format!("commit {part}"), |state| {
                    state.fence_of(generation)?;
                    if state.committed.contains(&part) {
                        return Ok(());
                    }
                    let lost = || CommitError::Refused(Error::external(format!("{part} is not there")));
                    let rows = state.prepared.remove(&part).ok_or_else(lost)?;
                    state.committed.insert(part.clone());
                    state.newest = state.newest.max(Some(committable.checkpoint));
                    state.show(committable.checkpoint, rows);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

/// A target for the staged strategy.
pub struct StagedRowsTarget<R>(pub Client<R>, PhantomData<fn() -> R>);

impl<R> StagedRowsTarget<R> {
    /// The target that a client sees.
    pub fn new(client: Client<R>) -> Self {
        Self(client, PhantomData)
    }
}

impl<R: Serialize + DeserializeOwned + Clone + Send + 'static> StagedTarget for StagedRowsTarget<R> {
    type Record = R;
    type Row = R;
    type Connection = ();

    fn row(&self, record: R) -> Result<R> {
        Ok(record)
    }

    async fn connect(&self, _context: &SinkContext) -> Result<()> {
        self.0.effect("connect".to_owned(), |_| Ok(())).await.map_err(plain)
    }

    async fn fence(&self, _: &mut (), context: &SinkContext) -> Result<()> {
        let generation = context.generation;
        let fence = |state: &mut State<R>| {
            state.fence_of(generation)?;
            state.fence = generation;
            Ok(())
        };
        self.0.effect(format!("fence {}", context.sink), fence).await.map_err(plain)
    }

    async fn committed(
        &self,
        _: &mut (),
        context: &SinkContext,
        instance: u32,
    ) -> Result<Option<CheckpointId>, CommitError> {
        let generation = context.generation;
        let token = |state: &mut State<R>| {
            state.fence_of(generation)?;
            Ok(state.tokens.get(&instance).copied())
        };
        self.0.effect(format!("read the token of instance {instance}"), token).await
    }

    async fn newest(&self, _: &mut (), context: &SinkContext) -> Result<Option<CheckpointId>, CommitError> {
        let generation = context.generation;
        let newest = |state: &mut State<R>| {
            state.fence_of(generation)?;
            Ok(state.tokens.values().max().copied())
        };
        self.0.effect("read the newest token".to_owned(), newest).await
    }

    async fn apply(&self, _: &mut (), token: &Token, rows: StagedRows<R>) -> Result<Applied, CommitError> {
        let rows: Vec<R> = rows.collect::<Result<_, _>>()?;
        let Token { instance, checkpoint, generation, .. } = token.clone();
        let what = format!("apply {} rows of checkpoint {checkpoint}, instance {instance}", rows.len());
        let apply = move |state: &mut State<R>| {
            state.fence_of(generation)?;
            if state.tokens.get(&instance) >= Some(&checkpoint) {
                return Ok(Applied::Before);
            }
            state.tokens.insert(instance, checkpoint);
            state.show(checkpoint, rows);
            Ok(Applied::Now)
        };
        self.0.effect(what, apply).await
    }
}
