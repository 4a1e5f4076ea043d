//! The splits of one source instance: which have a place, which wait for one, and what the next checkpoint is told.
//!
//! Only so many splits are open at a time, and work is in proportion to those. When others wait, one that has had
//! nothing for a while gives its place up, or one that has been read for long; it waits for its next turn with its
//! position. So all are read, however many there are. Nobody gives a place up while nobody waits.

use super::split::{PATIENCE, Split, Status, Tally};
use crate::context::SourceContext;
use crate::error::Result;
use crate::runtime::process::shared::Shared;
use crate::runtime::process::wall_clock;
use crate::source::{Records, Source};
use crate::time::EventTimePolicy;
use staunch_checkpoint::{CheckpointId, SplitPart};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How soon a source looks whether a split takes too long to be opened.
const LOOK_FOR_DEADLINE: Duration = Duration::from_millis(500);

pub(crate) struct Splits<S: Source> {
    /// Most splits that are open.
    places: usize,
    /// Open, or being opened.
    open: Vec<Split<S>>,
    /// The next to be opened first.
    waiting: VecDeque<Split<S>>,
    /// Event time of those that wait, while none comes or goes.
    waiting_tally: Option<Tally>,
    /// The split whose turn it is.
    turn: usize,
    /// What has changed of splits that are not open, since the last barrier.
    news: BTreeMap<String, SplitPart>,
    /// What was reported and is not known to be decided, with the checkpoint for which it was new.
    undecided: BTreeMap<String, (CheckpointId, SplitPart)>,
}

/// What was read of what readers hold back.
pub(crate) enum Drained {
    /// Something, or a split is at its end.
    More,
    /// Some readers are not ready.
    Later,
    /// There is no more of it.
    All,
}

/// What a turn of reading came to.
pub(crate) enum Turn {
    /// Records, or there may be some at once.
    More,
    /// No open split has anything.
    Nothing,
}

impl<S: Source> Splits<S> {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            open: Vec::new(),
            waiting: VecDeque::new(),
            waiting_tally: None,
            turn: 0,
            news: BTreeMap::new(),
            undecided: BTreeMap::new(),
        }
    }

    /// All are at their end.
    pub(crate) fn are_finished(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }

    /// Takes a split that is dealt to this instance.
    pub(crate) fn add(&mut self, mut split: Split<S>) -> Result<()> {
        self.take_note(&mut split)?;
        if !split.is_finished() {
            self.waiting.push_back(split);
            self.waiting_tally = None;
        }
        Ok(())
    }

    fn take_note(&mut self, split: &mut Split<S>) -> Result<()> {
        if let Some(part) = split.news(false)? {
            self.news.insert(part.id.clone(), part);
        }
        Ok(())
    }

    /// Gives places to those that wait. Returns when to look again at the latest.
    pub(crate) fn open_more(
        &mut self,
        source: &Arc<S>,
        context: &SourceContext,
        shared: &Arc<Shared>,
        waker: &Waker,
        draining: bool,
    ) -> Result<Option<Duration>> {
        let mut opening = false;
        for split in &mut self.open {
            split.collect_opened(context.deadline)?;
            opening |= split.is_opening();
        }
        if draining {
            // What was not begun stays unread; and whoever has a place is about to give it up for good.
            self.waiting.retain(Split::is_begun);
        } else {
            self.make_room()?;
        }
        while self.open.len() < self.places
            && let Some(mut split) = self.waiting.pop_front()
        {
            self.waiting_tally = None;
            split.open(source, context, shared, waker);
            opening = true;
            self.open.push(split);
        }
        let turns = (!self.waiting.is_empty()).then_some(PATIENCE);
        Ok(turns.or(opening.then_some(LOOK_FOR_DEADLINE)))
    }

    /// Has those give their places up that had them long enough, as many as others wait.
    fn make_room(&mut self) -> Result<()> {
        let needed = self.waiting.len().min(self.places).saturating_sub(self.places - self.open.len());
        if needed == 0 {
            return Ok(());
        }
        let now = wall_clock::now();
        let mut overdue: Vec<(Duration, usize)> =
            self.open.iter().enumerate().filter_map(|(at, split)| Some((split.overdue(now)?, at))).collect();
        overdue.sort_unstable_by(|a, b| b.cmp(a));
        overdue.truncate(needed);
        // From behind, so that the others keep their places in the list.
        overdue.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        for (_, at) in overdue {
            let mut split = self.open.remove(at);
            split.park();
            self.take_note(&mut split)?;
            self.waiting.push_back(split);
            self.waiting_tally = None;
        }
        Ok(())
    }

    /// Reads from the next split that has something. The splits that came to their ends are added to `ended`.
    pub(crate) fn read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Records<S::Record>,
        ended: &mut Vec<String>,
    ) -> Result<Turn> {
        for _ in 0..self.open.len() {
            self.turn = (self.turn + 1) % self.open.len();
            let split = &mut self.open[self.turn];
            let more = split.poll(cx, buffer)?;
            if more || !buffer.records.is_empty() || !buffer.bad.is_empty() {
                return Ok(Turn::More);
            }
            if split.is_finished() {
                ended.extend(self.let_go()?);
                if self.open.is_empty() {
                    break;
                }
            }
        }
        Ok(Turn::Nothing)
    }

    /// The records that were just read have these event times.
    pub(crate) fn saw(&mut self, times: &[i64]) {
        if let Some(split) = self.open.get_mut(self.turn) {
            split.saw(times);
        }
    }

    /// To be called once what was read is out: lets the split go if that was its end, and says which it was.
    pub(crate) fn let_go(&mut self) -> Result<Option<String>> {
        if !self.open.get(self.turn).is_some_and(Split::is_finished) {
            return Ok(None);
        }
        let mut split = self.open.remove(self.turn);
        // The one that moved up is next.
        self.turn = self.turn.checked_sub(1).unwrap_or(self.open.len().saturating_sub(1));
        self.take_note(&mut split)?;
        Ok(Some(split.id))
    }

    /// Reads what a reader holds back only because more might come, and lets the split go: the next one that may
    /// have such, or none. To be called again once what was read is out.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>, buffer: &mut Records<S::Record>) -> Result<Drained> {
        for at in 0..self.open.len() {
            self.turn = at;
            if self.open[at].drain(cx, buffer)? || !buffer.records.is_empty() || !buffer.bad.is_empty() {
                return Ok(Drained::More);
            }
        }
        Ok(if self.are_finished() { Drained::All } else { Drained::Later })
    }

    /// What to report at the barrier of a checkpoint: what has changed since the newest decided one. That is more
    /// than since the last barrier if that one was abandoned, or if nobody knows yet.
    pub(crate) fn report(
        &mut self,
        checkpoint: CheckpointId,
        decided: CheckpointId,
    ) -> Result<Vec<SplitPart>> {
        self.undecided.retain(|_, (at, _)| *at > decided);
        for (id, part) in std::mem::take(&mut self.news) {
            self.undecided.insert(id, (checkpoint, part));
        }
        for split in &mut self.open {
            if let Some(part) = split.news(true)? {
                self.undecided.insert(part.id.clone(), (checkpoint, part));
            }
        }
        Ok(self.undecided.values().map(|(_, part)| part.clone()).collect())
    }

    /// Event time of the instance.
    pub(crate) fn status(&mut self, policy: &EventTimePolicy, discovering: bool) -> Status {
        let waiting = *self.waiting_tally.get_or_insert_with(|| tally(self.waiting.iter(), policy));
        waiting.and(tally(self.open.iter(), policy)).status(discovering)
    }
}

fn tally<'a, S: Source>(splits: impl Iterator<Item = &'a Split<S>>, policy: &EventTimePolicy) -> Tally {
    let mut all = Tally::default();
    for split in splits {
        all = all.and(split.tally(policy));
        if all.is_silent() {
            break;
        }
    }
    all
}
