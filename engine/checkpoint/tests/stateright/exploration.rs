//! One exploration, from bounds to figures.

use crate::bounds::{Bounds, Mistake};
use crate::model::{Happening, Protocol};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What an exploration found.
#[derive(Debug)]
pub struct Found {
    /// States reached, as often as they were.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// Different durable worlds from which a start was run to its end.
    pub recovered: usize,
    /// The longest way looked at.
    pub depth: usize,
    pub took: Duration,
    /// Every state within the bounds was reached, not only those that time allowed.
    pub complete: bool,
    /// Properties that do not hold, with the way to where they do not.
    pub broken: BTreeMap<&'static str, Vec<Happening>>,
    /// What should have been met and was not.
    pub unmet: Vec<&'static str>,
}

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    pub threads: usize,
    /// Nearest first, which finds the shortest ways, and needs memory for all that is yet to be looked at.
    pub breadth_first: bool,
    pub limit: Option<Duration>,
    /// End as soon as this property is broken, in place of any.
    pub until: Option<&'static str>,
}

impl Search {
    /// Everything, on so many threads.
    pub fn all(threads: usize) -> Self {
        Self { threads, breadth_first: false, limit: None, until: None }
    }
}

/// Explores everything within the bounds. It ends at the first break.
pub fn explore(bounds: Bounds, mistake: Mistake, search: Search) -> Found {
    let began = Instant::now();
    let mut builder = Protocol::new(bounds, mistake).checker().threads(search.threads);
    if let Some(limit) = search.limit {
        builder = builder.timeout(limit);
    }
    builder = builder.finish_when(match search.until {
        Some(name) => HasDiscoveries::AllOf([name].into()),
        None => HasDiscoveries::AnyFailures,
    });
    if search.breadth_first {
        found(builder.spawn_bfs().join(), began, search)
    } else {
        found(builder.spawn_dfs().join(), began, search)
    }
}

fn found(checker: impl Checker<Protocol>, began: Instant, search: Search) -> Found {
    let took = began.elapsed();
    let met = checker.discoveries();
    let properties = checker.model().properties();
    let sometimes = properties.iter().filter(|p| p.expectation == Expectation::Sometimes);
    let unmet: Vec<&str> = sometimes.map(|p| p.name).filter(|name| !met.contains_key(name)).collect();
    let failures = properties.iter().filter(|p| p.expectation.discovery_is_failure());
    let broken = failures.filter_map(|p| Some((p.name, met.get(p.name)?.clone().into_actions())));
    let broken: BTreeMap<_, _> = broken.collect();
    Found {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        recovered: checker.model().settled.worlds(),
        depth: checker.max_depth(),
        took,
        complete: broken.is_empty() && search.limit.is_none_or(|limit| took < limit),
        broken,
        unmet,
    }
}
