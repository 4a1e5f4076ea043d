//! Which instance of a source reads which split, and where it begins.

use super::acknowledging::{self, AnyAcknowledger};
use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::runtime::process::link::Dealt;
use crate::runtime::steps::as_json::to_json;
use crate::source::{Revisit, Source};
use serde_json::Value;
use staunch_checkpoint::SplitPart;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Splits as found: identity and description.
pub(crate) type Found = Vec<(String, Value)>;

/// Lists the splits of one source, whatever its types.
pub(crate) struct Enumerator {
    pub(crate) name: String,
    pub(crate) every: Option<Duration>,
    /// See [`Source::forgets`].
    pub(crate) forgets: bool,
    pub(crate) acknowledger:
        Box<dyn Fn(SourceContext) -> Later<Option<Box<dyn AnyAcknowledger>>> + Send + Sync>,
    list: Box<dyn Fn(SourceContext) -> Later<Found> + Send + Sync>,
    revisit: Box<dyn Fn(Vec<(Value, Value)>, SourceContext) -> Later<Vec<Revisit>> + Send + Sync>,
}

type Later<A> = Pin<Box<dyn Future<Output = Result<A>> + Send>>;

impl Enumerator {
    pub(crate) fn new<S: Source>(name: &str, source: Arc<S>) -> Self {
        let (every, forgets) = (source.discover_every(), source.forgets());
        let (again, acknowledging) = (Arc::clone(&source), Arc::clone(&source));
        let acknowledger = move |context| acknowledging::open(Arc::clone(&acknowledging), context);
        let list = move |context: SourceContext| {
            let source = Arc::clone(&source);
            let listed: Later<Found> = Box::pin(async move {
                let splits = source.splits(&context).await?;
                // One for all of them: a directory of thousands of files is listed twice a second.
                let mut shape = None;
                splits
                    .into_iter()
                    .map(|(id, split)| {
                        let split = to_json(&id, "description", &split, &mut shape)?;
                        Ok((id, split))
                    })
                    .collect()
            });
            listed
        };
        let revisit = move |finished: Vec<(Value, Value)>, context: SourceContext| {
            let source = Arc::clone(&again);
            let said: Later<Vec<Revisit>> = Box::pin(async move {
                let typed = finished.into_iter().map(|(split, position)| {
                    Ok((serde_json::from_value(split)?, serde_json::from_value(position)?))
                });
                let typed: Result<Vec<_>, serde_json::Error> = typed.collect();
                let typed = typed.map_err(|e| {
                    Error::job(
                        "a position in the checkpoint is of another shape; was the source replaced by one of another \
                         type under the same name?",
                    )
                    .caused_by(e)
                })?;
                source.revisit(typed, &context).await
            });
            said
        };
        Self {
            name: name.to_owned(),
            every,
            forgets,
            acknowledger: Box::new(acknowledger),
            list: Box::new(list),
            revisit: Box::new(revisit),
        }
    }

    /// What has become of finished splits, in the time that is given to it.
    pub(crate) async fn revisit(
        &self,
        finished: Vec<(String, Value, Value)>,
        context: SourceContext,
    ) -> Result<Vec<(String, Value, Revisit)>> {
        let pairs = finished.iter().map(|(_, split, position)| (split.clone(), position.clone())).collect();
        let limit = context.deadline;
        let said = tokio::time::timeout(limit, (self.revisit)(pairs, context)).await.unwrap_or_else(|_| {
            Err(Error::external(format!(
                "the source did not look at its finished splits within {limit:?} (--open-timeout)"
            )))
        });
        let said = said.map_err(|e| e.in_step(&self.name))?;
        if said.len() != finished.len() {
            return Err(Error::internal("the source spoke of another number of splits").in_step(&self.name));
        }
        Ok(finished.into_iter().zip(said).map(|((id, split, _), said)| (id, split, said)).collect())
    }

    /// Lists them, in the time that is given to it.
    pub(crate) async fn list(&self, context: SourceContext) -> Result<Found> {
        let limit = context.deadline;
        let late = || {
            Error::external(format!(
                "the source did not list its splits within {limit:?} (--open-timeout); is what it reads there, and does it answer?"
            ))
        };
        // A task of its own: what blocks its thread is given up too.
        let listing = tokio::time::timeout(limit, tokio::spawn((self.list)(context))).await;
        let listed = match listing {
            Ok(Ok(listed)) => listed,
            Ok(Err(died)) => match died.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::internal("the listing of splits was given up")),
            },
            Err(_) => Err(late()),
        };
        listed.map_err(|e| e.in_step(&self.name))
    }
}

/// Says which instance of one source reads which split, counted over all processes.
#[derive(Debug)]
pub(crate) struct SplitHub {
    queues: Mutex<Queues>,
}

/// What the restored checkpoint knows of a split.
#[derive(Debug)]
struct Restored {
    part: SplitPart,
    /// It says just this of it.
    is_known: bool,
}

#[derive(Debug)]
struct Queues {
    /// What the restored checkpoint knows and is not dealt out yet, in the order of identities.
    restored: BTreeMap<String, Restored>,
    /// Every split that was dealt or has ended, and is not forgotten.
    known: HashMap<String, Known>,
    instances: u32,
    next: u32,
}

/// What is known of a split.
#[derive(Debug)]
struct Known {
    /// Its description, as text: there may be very many of them.
    description: Box<str>,
    instance: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// Read to its end, which no decided checkpoint says yet.
    Finished,
    /// A decided checkpoint says so.
    Decided,
}

/// What a listing brought.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Splits that are new, and whose they are.
    pub(crate) dealt: Vec<Dealt>,
    /// Ended ones that are not there any more.
    pub(crate) forgotten: Vec<String>,
}

impl SplitHub {
    /// Takes what the checkpoint knows; [`SplitHub::deal_restored`] deals it out.
    pub(crate) fn new(instances: u32, restored: Vec<SplitPart>) -> Self {
        let restored = restored.into_iter().map(|part| (part.id.clone(), Restored { part, is_known: true }));
        let queues = Queues { restored: restored.collect(), known: HashMap::new(), instances, next: 0 };
        Self { queues: Mutex::new(queues) }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of the splits that were found, those that the checkpoint says are finished, with their positions.
    pub(crate) fn finished_of(&self, found: &Found) -> Vec<(String, Value, Value)> {
        let queues = self.queues();
        let with_position = |(id, split): &(String, Value)| {
            let part = queues.restored.get(id).map(|restored| &restored.part).filter(|part| part.finished)?;
            Some((id.clone(), split.clone(), part.position.clone()?))
        };
        found.iter().filter_map(with_position).collect()
    }

    /// What the source says of finished splits, before any is dealt out.
    pub(crate) fn revise(&self, said: Vec<(String, Value, Revisit)>) {
        let mut queues = self.queues();
        for (id, split, said) in said {
            let Some(Restored { part, is_known }) = queues.restored.get_mut(&id) else { continue };
            part.split = split;
            if said != Revisit::Finished {
                (part.finished, *is_known) = (false, false);
            }
            if said == Revisit::New {
                (part.position, part.max_event_time_ms) = (None, None);
            }
        }
    }

    /// Deals out what the checkpoint knows. What has ended is nobody's, and only not to be read again.
    pub(crate) fn deal_restored(&self) -> Vec<Dealt> {
        let mut queues = self.queues();
        let mut dealt = Vec::new();
        for (id, Restored { part, is_known }) in std::mem::take(&mut queues.restored) {
            if part.finished {
                let description = part.split.to_string().into();
                queues.known.insert(id, Known { description, instance: 0, state: State::Decided });
            } else {
                dealt.push(queues.deal(part, is_known, None));
            }
        }
        dealt
    }

    /// Deals out the splits that are new, and those that are others of their names than the ones that were read to
    /// their ends. If `forgets`, those that have ended and are not found are forgotten.
    pub(crate) fn listed(&self, mut found: Found, forgets: bool) -> Listed {
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut queues = self.queues();
        let mut forgotten = Vec::new();
        if forgets {
            let is_there = |id: &String| found.binary_search_by(|(other, _)| other.cmp(id)).is_ok();
            queues.known.retain(|id, known| {
                let goes = known.state == State::Decided && !is_there(id);
                if goes {
                    forgotten.push(id.clone());
                }
                !goes
            });
        }
        let mut dealt = Vec::new();
        for (id, split) in found {
            // Whoever read the old one may still have to report its end: the new one is to come to the same.
            let instance = match queues.known.get(&id) {
                Some(known) if known.state == State::Open || *known.description == *split.to_string() => {
                    continue;
                }
                Some(known) if known.state == State::Finished => Some(known.instance),
                _ => None,
            };
            let part = SplitPart { id, split, position: None, finished: false, max_event_time_ms: None };
            dealt.push(queues.deal(part, false, instance));
        }
        Listed { dealt, forgotten }
    }

    /// A split was read to its end.
    pub(crate) fn finished(&self, id: &str) {
        if let Some(known) = self.queues().known.get_mut(id) {
            known.state = State::Finished;
        }
    }

    /// It is decided that these have ended.
    pub(crate) fn ended(&self, splits: &[SplitPart]) {
        let mut queues = self.queues();
        for part in splits {
            // Another one may have its name by now.
            if let Some(known) = queues.known.get_mut(&part.id)
                && known.state == State::Finished
                && *known.description == *part.split.to_string()
            {
                known.state = State::Decided;
            }
        }
    }
}

impl Queues {
    fn deal(&mut self, part: SplitPart, is_known: bool, instance: Option<u32>) -> Dealt {
        let instance = instance.unwrap_or_else(|| {
            let next = self.next;
            self.next = (next + 1) % self.instances;
            next
        });
        let description = part.split.to_string().into();
        self.known.insert(part.id.clone(), Known { description, instance, state: State::Open });
        Dealt { instance, part, is_known }
    }
}

#[cfg(test)]
#[path = "splits_tests.rs"]
mod tests;
