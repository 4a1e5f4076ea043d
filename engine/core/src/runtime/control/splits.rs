//! Which instance of a source reads which split, and where it begins.

use crate::context::SourceContext;
use crate::error::{Error, Result};
use crate::source::Source;
use serde_json::Value;
use staunch_checkpoint::SplitPart;
use std::collections::HashSet;
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
    list: Box<dyn Fn(SourceContext) -> Pin<Box<dyn Future<Output = Result<Found>> + Send>> + Send + Sync>,
}

impl Enumerator {
    pub(crate) fn new<S: Source>(name: &str, source: Arc<S>) -> Self {
        let list = move |context: SourceContext| {
            let source = Arc::clone(&source);
            let future: Pin<Box<dyn Future<Output = Result<Found>> + Send>> = Box::pin(async move {
                let splits = source.splits(&context).await?;
                splits
                    .into_iter()
                    .map(|(id, split)| {
                        let split = serde_json::to_value(split).map_err(|e| {
                            Error::internal(format!("split {id} cannot be written as JSON")).caused_by(e)
                        })?;
                        Ok((id, split))
                    })
                    .collect()
            });
            future
        };
        Self { name: name.to_owned(), every: None, list: Box::new(list) }
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
    known: HashSet<String>,
    of_instance: Vec<Vec<SplitPart>>,
    next: usize,
}

impl SplitHub {
    /// Deals out what the checkpoint knows, in the order of identities.
    pub(crate) fn new(workers: usize, restored: Vec<SplitPart>) -> Arc<Self> {
        let hub = Self {
            queues: Mutex::new(Queues {
                known: HashSet::new(),
                of_instance: vec![Vec::new(); workers],
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
        let before = queues.known.len();
        for split in splits {
            if !queues.known.insert(split.id.clone()) {
                continue;
            }
            // Finished splits are dealt apart, so that the open ones stay evenly spread.
            let target = if split.finished { 0 } else { queues.next };
            if !split.finished {
                queues.next = (queues.next + 1) % queues.of_instance.len();
            }
            queues.of_instance[target].push(split);
        }
        self.version.fetch_add(1, SeqCst);
        queues.known.len() - before
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

    pub(crate) fn take(&self, instance: usize) -> Vec<SplitPart> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut queues.of_instance[instance])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_dealt_evenly_and_a_known_one_is_never_dealt_again() {
        let hub = SplitHub::new(2, Vec::new());
        let found: Found = ["c", "a", "b"].map(|id| (id.to_owned(), Value::Null)).to_vec();
        assert_eq!(hub.discovered(found.clone()), 3);
        assert_eq!(hub.discovered(found), 0);
        let ids = |splits: Vec<SplitPart>| splits.into_iter().map(|s| s.id).collect::<Vec<_>>();
        assert_eq!(ids(hub.take(0)), ["a", "c"]);
        assert_eq!(ids(hub.take(1)), ["b"]);
        assert!(hub.take(0).is_empty());
    }
}
