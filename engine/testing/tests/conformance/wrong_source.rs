//! A log in memory that keeps the contract of sources but for one mistake.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use staunch::core::context::SourceContext;
use staunch::core::sink::CommitError;
use staunch::core::source::{
    Acknowledger, Acknowledging, DeadLetter, Progress, Records, Source, SplitReader,
};
use staunch::core::{Error, Result};
use staunch_testing::conformance::Can;
use staunch_testing::conformance::source::Input;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};
use std::time::Duration;

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    NamesByOrderOfAHashMap,
    NamesByPlaceInTheListing,
    WritesHalfThePosition,
    SwapsRecordsWhenThereIsRoom,
    SharesACursor,
    PositionOfTheLastRecord,
    PositionABatchAhead,
    StandsAtTheBeginningUntilPolled,
    MovesWithoutRoom,
    BeginsAnewAtTheEnd,
    GoesToTheNewest,
    GoesToTheNearest,
    SleepsInPoll,
    BlocksInPoll,
    IgnoresTheRoom,
    ForgetsTheFirstWaker,
    NeverWakes,
    WakesTheFirstWaker,
    IsAlwaysReady,
    GoesOnAfterTheEnd,
    NeverEnds,
    DropsBadInput,
    FailsAtBadInput,
    TellsBadInputTwice,
    GivesNoReason,
    SeeksToTheDecision,
    AcknowledgesAtRead,
    AcknowledgesAllAtADecision,
    CountsNotices,
}

#[derive(Clone, Debug)]
enum Item {
    Good(u64),
    Bad,
}

#[derive(Debug, Default)]
struct Split {
    items: Vec<Item>,
    ended: bool,
    wakers: Vec<Waker>,
    acknowledged: u64,
    /// For those who share it, and those who acknowledge it.
    cursor: usize,
    /// Where the last reader was opened.
    opened: usize,
    /// Where the next poll goes to.
    seek: Option<usize>,
}

#[derive(Debug, Default)]
struct Inside {
    splits: BTreeMap<String, Split>,
    listings: usize,
}

/// The log, the source over it, and the input of the suite.
#[derive(Clone, Debug)]
pub struct Wrong {
    mistake: Mistake,
    inside: Arc<Mutex<Inside>>,
}

pub fn wrong(mistake: Mistake) -> Wrong {
    let split =
        |from, records| Split { items: (from..from + records).map(Item::Good).collect(), ..Split::default() };
    let splits = [("b", split(100, 20)), ("c", split(200, 9)), ("d", split(300, 0))];
    let splits = splits.map(|(name, split)| (name.to_owned(), split)).into();
    Wrong { mistake, inside: Arc::new(Mutex::new(Inside { splits, listings: 0 })) }
}

impl Wrong {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    fn names_by_number(&self) -> bool {
        self.is(Mistake::NamesByPlaceInTheListing)
    }

    /// The split of this identity, as the test means it.
    fn name_of(&self, id: &str) -> String {
        match id.parse::<usize>() {
            Ok(number) => ["b", "c", "d"][number].to_owned(),
            Err(_) => id.to_owned(),
        }
    }

    fn change<R>(&self, id: &str, change: impl FnOnce(&mut Split) -> R) -> R {
        let name = self.name_of(id);
        let mut inside = self.lock();
        let split = inside.splits.get_mut(&name).unwrap();
        let result = change(split);
        let wakers = std::mem::take(&mut split.wakers);
        if !self.is(Mistake::NeverWakes) {
            wakers.into_iter().for_each(Waker::wake);
        }
        result
    }
}

fn good(items: &[Item]) -> Vec<u64> {
    let good = items.iter().map(|item| match item {
        Item::Good(n) => Some(*n),
        Item::Bad => None,
    });
    good.flatten().collect()
}

impl Input for Wrong {
    type Record = u64;
    type Source = Self;

    fn source(&self) -> Self {
        self.clone()
    }

    fn expected(&self) -> Vec<(String, Vec<u64>)> {
        let inside = self.lock();
        let id =
            |at: usize, name: &String| if self.names_by_number() { at.to_string() } else { name.clone() };
        inside
            .splits
            .iter()
            .enumerate()
            .map(|(at, (name, split))| (id(at, name), good(&split.items)))
            .collect()
    }

    fn end(&self) -> Can {
        ["b", "c", "d"].iter().for_each(|id| self.change(id, |split| split.ended = true));
        Can::Done(())
    }

    fn grow(&self, split: &str) -> Can<Vec<u64>> {
        let more = [1, 2, 3];
        self.change(split, |split| split.items.extend(more.map(Item::Good)));
        Can::Done(more.to_vec())
    }

    fn add_split(&self) -> Can<(String, Vec<u64>)> {
        let split = Split { items: vec![Item::Good(7)], ..Split::default() };
        self.lock().splits.insert("a".into(), split);
        Can::Done((if self.names_by_number() { "3" } else { "a" }.into(), vec![7]))
    }

    fn lose_positions(&self, split: &str) -> Can {
        self.change(split, |split| split.items.truncate(1));
        Can::Done(())
    }

    fn spoil(&self) -> Can<Vec<(String, usize)>> {
        self.change("b", |split| {
            split.items.push(Item::Bad);
            split.items.insert(3, Item::Bad);
            split.items.insert(0, Item::Bad);
        });
        Can::Done(vec![(if self.names_by_number() { "0" } else { "b" }.into(), 3)])
    }

    fn acknowledged(&self, split: &str) -> Can<u64> {
        Can::Done(self.change(split, |split| split.acknowledged))
    }

    fn batch(&self) -> usize {
        3
    }

    fn patience(&self) -> Duration {
        // Only wrong sources wait so long, most of them once or twice; one of them in ten rules.
        Duration::from_millis(if self.is(Mistake::PositionABatchAhead) { 2500 } else { 5000 })
    }
}

/// A position that can be told to lose its lower half in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct At {
    next: usize,
    halved: bool,
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (if self.halved { self.next / 2 * 2 } else { self.next }).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(At { next: usize::deserialize(deserializer)?, halved: false })
    }
}

impl Source for Wrong {
    type Record = u64;
    type Split = String;
    type Position = At;
    type Reader = Reader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, String)>> {
        let mut inside = self.lock();
        let names: Vec<String> = inside.splits.keys().cloned().collect();
        let turn = inside.listings;
        inside.listings += 1;
        let ids: Vec<String> = match self.mistake {
            // Each listing begins elsewhere.
            Mistake::NamesByOrderOfAHashMap => {
                (0..names.len()).map(|at| names[(at + turn) % names.len()].clone()).collect()
            }
            Mistake::NamesByPlaceInTheListing => (0..names.len()).map(|at| at.to_string()).collect(),
            _ => names.clone(),
        };
        Ok(ids.into_iter().zip(names).collect())
    }

    async fn open(&self, name: String, at: Option<At>, _: &SourceContext) -> Result<Reader> {
        let mut inside = self.lock();
        let split = inside.splits.get_mut(&name).ok_or_else(|| Error::job("no such split"))?;
        let mut next = at.map_or(0, |at| at.next);
        match self.mistake {
            Mistake::GoesToTheNearest => next = next.min(split.items.len()),
            Mistake::BeginsAnewAtTheEnd if next == split.items.len() => next = 0,
            // Three are appended at a time, see `grow`.
            Mistake::GoesToTheNewest if next > 0 && next + 3 == split.items.len() && next % 10 > 8 => {
                next = split.items.len();
            }
            _ => {}
        }
        if next > split.items.len() {
            return Err(Error::job("the position is gone"));
        }
        (split.cursor, split.opened) = (next, next);
        Ok(Reader { log: self.clone(), name, next, polled: false, ended: false, idle: 0, told: false })
    }

    async fn acknowledger(&self, _: &SourceContext) -> Result<Option<Acknowledging<At>>> {
        Ok(Some(Acknowledging::by(Teller(self.clone()))))
    }
}

pub struct Reader {
    log: Wrong,
    name: String,
    next: usize,
    polled: bool,
    ended: bool,
    /// Polls that found nothing.
    idle: u32,
    /// Has told the same bad input once.
    told: bool,
}

impl Reader {
    /// Takes items while there is room. True if it took any.
    fn take(&mut self, split: &mut Split, out: &mut Records<u64>) -> Result<bool> {
        let (log, from) = (&self.log, self.next);
        let all = log.is(Mistake::IgnoresTheRoom);
        if out.room() == 0 && log.is(Mistake::MovesWithoutRoom) && self.next < split.items.len() {
            self.next += 1;
        }
        let large = out.room() >= 4096 && log.is(Mistake::SwapsRecordsWhenThereIsRoom);
        if large && self.next + 1 < split.items.len() {
            split.items.swap(self.next, self.next + 1);
        }
        while (all || out.room() > 0) && self.next < split.items.len() {
            match &split.items[self.next] {
                Item::Good(n) => out.push(*n, 8),
                Item::Bad => match log.mistake {
                    Mistake::DropsBadInput => {}
                    Mistake::FailsAtBadInput => return Err(Error::job("bad input")),
                    Mistake::GivesNoReason => out.bad(DeadLetter::new("somewhere", "", b"?")),
                    Mistake::TellsBadInputTwice if !self.told => {
                        self.told = true;
                        out.bad(DeadLetter::new(format!("item {}", self.next), "bad", b"?"));
                        continue;
                    }
                    _ => out.bad(DeadLetter::new(format!("item {}", self.next), "bad", b"?")),
                },
            }
            self.next += 1;
        }
        Ok(self.next > from)
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = At;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<u64>) -> Result<Progress> {
        let log = self.log.clone();
        if log.is(Mistake::ForgetsTheFirstWaker) && !self.polled {
            self.polled = true;
            return Ok(Progress::Idle);
        }
        self.polled = true;
        let mut inside = log.lock();
        let split = inside.splits.get_mut(&self.name).unwrap();
        if log.is(Mistake::SharesACursor) {
            self.next = split.cursor;
        }
        self.next = split.seek.take().unwrap_or(self.next);
        let took = self.take(split, out)?;
        split.cursor = self.next;
        if log.is(Mistake::AcknowledgesAtRead) {
            split.acknowledged = split.acknowledged.max(self.next as u64);
        }
        if took {
            return Ok(Progress::Ready);
        }
        if split.ended && !log.is(Mistake::NeverEnds) {
            let again = std::mem::replace(&mut self.ended, true) && log.is(Mistake::GoesOnAfterTheEnd);
            return Ok(if again { Progress::Ready } else { Progress::End });
        }
        self.idle += 1;
        match log.mistake {
            // Not at the first ones, so that only who polls on and on must wait.
            Mistake::SleepsInPoll if self.idle > 3 => std::thread::sleep(Duration::from_millis(30)),
            Mistake::BlocksInPoll => {
                drop(inside);
                std::thread::sleep(Duration::from_secs(3600));
                return Ok(Progress::Idle);
            }
            Mistake::IsAlwaysReady => return Ok(Progress::Ready),
            Mistake::WakesTheFirstWaker if !split.wakers.is_empty() => return Ok(Progress::Idle),
            _ => {}
        }
        split.wakers.push(cx.waker().clone());
        Ok(Progress::Idle)
    }

    fn position(&self) -> At {
        let log = &self.log;
        let next = match log.mistake {
            Mistake::PositionOfTheLastRecord => self.next.saturating_sub(1),
            Mistake::PositionABatchAhead if self.polled => {
                (self.next + 3).min(log.lock().splits[&self.name].items.len())
            }
            Mistake::StandsAtTheBeginningUntilPolled if !self.polled => 0,
            _ => self.next,
        };
        At { next, halved: log.is(Mistake::WritesHalfThePosition) }
    }
}

struct Teller(Wrong);

impl Acknowledger for Teller {
    type Position = At;

    async fn acknowledge(&mut self, upto: &[(String, At)]) -> Result<(), CommitError> {
        for (id, at) in upto {
            let name = self.0.name_of(id);
            let mut inside = self.0.lock();
            let split = inside.splits.get_mut(&name).unwrap();
            split.acknowledged = match self.0.mistake {
                Mistake::SeeksToTheDecision => {
                    split.seek = Some(at.next);
                    at.next as u64
                }
                Mistake::AcknowledgesAllAtADecision => split.cursor as u64,
                Mistake::CountsNotices => split.acknowledged + (at.next - split.opened) as u64,
                _ => split.acknowledged.max(at.next as u64),
            };
        }
        Ok(())
    }
}
