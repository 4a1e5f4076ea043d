//! What a state would come to if everything died in it and no more trouble came: a start, alone, to its
//! end. It depends on what is durable and on nothing else, so it is worked out once for each such world.

use crate::bounds::{Faults, Seen};
use crate::model::{Happening, Protocol, State};
use crate::process::Step;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// More steps than any recovery takes.
const MOST_STEPS: usize = 1000;

/// Worlds known to recover.
#[derive(Default)]
pub struct Settled {
    known: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Settled {
    /// Whether a start from here ends with each record committed once, and leaves nothing behind; with
    /// creations that are still on their way arriving before it, and never.
    pub fn recovers(&self, model: &Protocol, state: &State) -> bool {
        if !state.world.broken.is_empty() {
            return true; // That is told by another property.
        }
        let key = self.hasher.hash_one(&state.world);
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return true;
        }
        let mut dead = State { world: state.world.clone(), processes: Vec::new(), faults: Faults::default() };
        let recovers = if dead.world.late.is_empty() {
            settle(model, dead)
        } else {
            let mut never = dead.clone();
            never.world.late.clear();
            while !dead.world.late.is_empty() {
                model.happen(&mut dead, &Happening::Arrive(0), &Seen::default());
            }
            settle(model, never) && settle(model, dead)
        };
        if recovers {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        recovers
    }

    /// How many different worlds have been recovered.
    pub fn worlds(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn settle(model: &Protocol, mut state: State) -> bool {
    let unseen = Seen::default();
    if !model.happen(&mut state, &Happening::Start, &unseen) {
        return false;
    }
    let mut possible = Vec::new();
    for _ in 0..MOST_STEPS {
        if state.processes.is_empty() || !state.world.broken.is_empty() {
            break;
        }
        possible.clear();
        model.possible(&state, &mut possible);
        // A barrier only when nothing else is to be done; a timeout last of all.
        let rank = |happening: &&Happening| match happening {
            Happening::Of(_, Step::Timeout) => 2,
            Happening::Of(_, Step::Trigger) => 1,
            _ => 0,
        };
        let Some(next) = possible.iter().min_by_key(rank).cloned() else { break };
        model.happen(&mut state, &next, &unseen);
    }
    let ended = state.processes.is_empty() && state.world.broken.is_empty();
    ended && state.world.is_complete(&model.bounds) && state.world.is_tidy()
}
