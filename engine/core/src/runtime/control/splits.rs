//! Which instance of a source reads which split, and where it begins.

use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::runtime::steps::as_json::to_json;
use crate::source::{Revisit, Source};
use serde_json::Value;
use staunch_checkpoint::SplitPart;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Splits as found: identity and description.
pub(crate) type Found = Vec<(String, Value)>;

/// Lists the splits of one source, whatever its types.
pub(crate) struct Enumerator {
    pub(crate) name: String,
    pub(crate) every: Option<Duration>,
    list: Box<dyn Fn(SourceContext) -> Later<Found> + Send + Sync>,
    revisit: Box<dyn Fn(Vec<(Value, Value)>, SourceContext) -> Later<Vec<Revisit>> + Send + Sync>,
}

type Later<A> = Pin<Box<dyn Future<Output = Result<A>> + Send>>;

impl Enumerator {
    pub(crate) fn new<S: Source>(name: &str, source: Arc<S>) -> Self {
        let again = Arc::clone(&source);
        let list = move |context: SourceContext| {
            let source = Arc::clone(&source);
            let listed: Later<Found> = Box::pin(async move {
                let splits = source.splits(&context).await?;
                splits
                    .into_iter()
                    .map(|(id, split)| {
                        let split = to_json(&id, "description", &split, &mut None)?;
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
        Self { name: name.to_owned(), every: None, list: Box::new(list), revisit: Box::new(revisit) }
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

/// Hands splits to the instances of one source.
#[derive(Debug)]
pub(crate) struct SplitHub {
    queues: Mutex<Queues>,
    /// Changes with every hand-out, so that instances look only then.
    version: AtomicU64,
}

#[derive(Debug)]
struct Queues {
    known: HashMap<String, Known>,
    of_instance: Vec<Vec<Dealt>>,
    next: usize,
}

/// A split on its way to an instance.
#[derive(Debug)]
pub(crate) struct Dealt {
    pub(crate) part: SplitPart,
    /// The instance has a finished one of this name, whose place it takes.
    pub(crate) again: bool,
}

/// What is known of a split that was dealt.
#[derive(Debug)]
struct Known {
    description: Value,
    instance: usize,
    finished: bool,
}

impl Queues {
    /// Deals one out if it is new, or another one of its name than the one that was read to its end.
    fn deal(&mut self, split: SplitPart) -> bool {
        // Finished splits are dealt apart, so that the open ones stay evenly spread.
        let mut instance = if split.finished { 0 } else { self.next };
        let again = self.known.contains_key(&split.id);
        match self.known.get(&split.id) {
            Some(known) if !known.finished || known.description == split.split => return false,
            // Whoever has the old one has it replaced.
            Some(known) => instance = known.instance,
            None if !split.finished => self.next = (self.next + 1) % self.of_instance.len(),
            None => {}
        }
        let known = Known { description: split.split.clone(), instance, finished: split.finished };
        self.known.insert(split.id.clone(), known);
        self.of_instance[instance].push(Dealt { part: split, again });
        true
    }
}

impl SplitHub {
    /// Deals out what the checkpoint knows, in the order of identities.
    pub(crate) fn new(workers: usize, restored: Vec<SplitPart>) -> Arc<Self> {
        let hub = Self {
            queues: Mutex::new(Queues {
                known: HashMap::new(),
                of_instance: (0..workers).map(|_| Vec::new()).collect(),
                next: 0,
            }),
            version: AtomicU64::new(0),
        };
        hub.deal(restored);
        Arc::new(hub)
    }

    fn deal(&self, mut splits: Vec<SplitPart>) -> usize {
        splits.sort_by(|a, b| a.id.cmp(&b.id));
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let dealt = splits.into_iter().map(|split| usize::from(queues.deal(split))).sum();
        if dealt > 0 {
            self.version.fetch_add(1, SeqCst);
        }
        dealt
    }

    /// A split was read to its end.
    pub(crate) fn finished(&self, id: &str) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = queues.known.get_mut(id) {
            known.finished = true;
        }
    }

    /// Of the splits that were found, those that the checkpoint says are finished, with their positions.
    pub(crate) fn finished_of(&self, found: &Found) -> Vec<(String, Value, Value)> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = queues.of_instance.iter().flatten().map(|dealt| &dealt.part).filter(|part| part.finished);
        let positions: HashMap<&str, &Value> =
            parts.filter_map(|part| Some((part.id.as_str(), part.position.as_ref()?))).collect();
        let with_position = |(id, split): &(String, Value)| {
            positions.get(id.as_str()).map(|position| (id.clone(), split.clone(), (*position).clone()))
        };
        found.iter().filter_map(with_position).collect()
    }

    /// Deals everything anew, before anybody took anything, with what the source says of finished splits.
    pub(crate) fn revise(&self, said: Vec<(String, Value, Revisit)>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let said: HashMap<String, (Value, Revisit)> =
            said.into_iter().map(|(id, split, said)| (id, (split, said))).collect();
        let dealt = queues.of_instance.iter_mut().flat_map(std::mem::take);
        let mut parts: Vec<SplitPart> = dealt.map(|dealt| dealt.part).collect();
        parts.sort_by(|a, b| a.id.cmp(&b.id));
        queues.known.clear();
        queues.next = 0;
        for mut part in parts {
            if let Some((split, said)) = said.get(&part.id) {
                part.split = split.clone();
                part.finished = *said == Revisit::Finished;
                if *said == Revisit::New {
                    part.position = None;
                }
            }
            queues.deal(part);
        }
    }

    /// Deals out the splits that are new; returns how many those were.
    pub(crate) fn discovered(&self, found: Found) -> usize {
        let new =
            |(id, split)| SplitPart { id, split, position: None, finished: false, max_event_time_ms: None };
        self.deal(found.into_iter().map(new).collect())
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    pub(crate) fn take(&self, instance: usize) -> Vec<Dealt> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut queues.of_instance[instance])
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_dealt_evenly_and_a_known_one_is_never_dealt_again() {
        let hub = SplitHub::new(2, Vec::new());
        let found: Found = ["c", "a", "b"].map(|id| (id.to_owned(), Value::Null)).to_vec();
        assert_eq!(hub.discovered(found.clone()), 3);
        assert_eq!(hub.discovered(found), 0);
        let ids = |splits: Vec<Dealt>| splits.into_iter().map(|dealt| dealt.part.id).collect::<Vec<_>>();
        assert_eq!(ids(hub.take(0)), ["a", "c"]);
        assert_eq!(ids(hub.take(1)), ["b"]);
        assert!(hub.take(0).is_empty());
    }

    fn part(id: &str, split: u32, finished: bool) -> SplitPart {
        SplitPart {
            id: id.into(),
            split: split.into(),
            position: Some(7.into()),
            finished,
            max_event_time_ms: None,
        }
    }

    #[test]
    fn another_split_of_a_name_is_dealt_once_the_first_is_finished_and_to_whoever_has_that() {
        let hub = SplitHub::new(3, vec![part("a", 1, false), part("b", 1, false)]);
        assert_eq!([hub.take(0).len(), hub.take(1).len()], [1, 1]);
        let found = |split: u32| vec![("b".to_owned(), Value::from(split))];
        assert_eq!(hub.discovered(found(2)), 0, "it is still read");
        hub.finished("b");
        assert_eq!((hub.discovered(found(1)), hub.discovered(found(2)), hub.discovered(found(2))), (0, 1, 0));
        let dealt = hub.take(1);
        let [Dealt { part, again: true }] = &dealt[..] else { panic!("{dealt:?}") };
        assert_eq!((part.finished, &part.position), (false, &None));
    }

    #[test]
    fn finished_splits_are_dealt_as_the_source_says_when_it_looks_at_them_again() {
        let parts = ["a", "b", "c", "d"].map(|id| part(id, 1, id != "d"));
        let hub = SplitHub::new(2, parts.to_vec());
        let found: Found = ["a", "b", "c", "d", "e"].map(|id| (id.to_owned(), Value::from(2))).to_vec();
        let finished = hub.finished_of(&found);
        assert_eq!(finished.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let said = [Revisit::Finished, Revisit::GoesOn, Revisit::New];
        hub.revise(finished.into_iter().zip(said).map(|((id, split, _), said)| (id, split, said)).collect());
        assert_eq!(hub.discovered(found), 1);
        let dealt = hub.take(0).into_iter().chain(hub.take(1));
        let mut dealt: Vec<SplitPart> = dealt.map(|dealt| dealt.part).collect();
        dealt.sort_by(|a, b| a.id.cmp(&b.id));
        let dealt: Vec<_> = dealt.iter().map(|p| (p.id.as_str(), p.finished, p.position.is_some())).collect();
        let expected = [
            ("a", true, true),
            ("b", false, true),
            ("c", false, false),
            ("d", false, true),
            ("e", false, false),
        ];
        assert_eq!(dealt, expected);
    }
}
