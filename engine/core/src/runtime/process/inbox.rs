//! Splits that were dealt to the source instances of this process, until these take them.

use super::link::Dealt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// For one source.
#[derive(Default, Debug)]
pub(crate) struct Inbox {
    of_instance: Mutex<HashMap<u32, Vec<Dealt>>>,
    /// Changes whenever something comes, so that instances look only then.
    version: AtomicU64,
}

impl Inbox {
    pub(crate) fn add(&self, splits: Vec<Dealt>) {
        let mut of_instance = self.of_instance.lock().unwrap_or_else(PoisonError::into_inner);
        for dealt in splits {
            of_instance.entry(dealt.instance).or_default().push(dealt);
        }
        drop(of_instance);
        self.version.fetch_add(1, SeqCst);
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(SeqCst)
    }

    pub(crate) fn take(&self, instance: usize) -> Vec<Dealt> {
        let mut of_instance = self.of_instance.lock().unwrap_or_else(PoisonError::into_inner);
        of_instance.remove(&(instance as u32)).unwrap_or_default()
    }
}
