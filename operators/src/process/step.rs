//! A process as a step: batches of records, and timers in slices.

use super::Process;
use super::cx::Cx;
use super::state::{ValueOf, expire};
use super::timers::{Due, Timers, USER};
use staunch_core::batch::Batch;
use staunch_core::step::{Advance, Moment, Properties, State, Step, StepCx};
use staunch_core::{Result, StateKey, TimerTable, Timestamp, hash_key};
use std::rc::Rc;

/// Keys whose states are fetched ahead together: enough to hide the latency, few enough to stay in the first-level cache.
const AHEAD: usize = 64;
/// Timers fired in one call, between the turns of other steps.
const SLICE: usize = 1024;

pub(super) struct ProcessStep<K, P> {
    process: P,
    values: Vec<Rc<dyn ValueOf<K>>>,
    timers: Timers<K>,
}

impl<K: StateKey, P> ProcessStep<K, P> {
    pub(super) fn new(
        process: P,
        values: Vec<Rc<dyn ValueOf<K>>>,
        timers: State<TimerTable<Due, K>>,
    ) -> Self {
        Self { process, values, timers: Timers::new(timers) }
    }

    fn fire<V>(&mut self, (time, purpose): Due, key: &K, cx: &mut StepCx<P::Out>) -> Result<()>
    where
        P: Process<K, V>,
    {
        let hash = hash_key(key);
        if purpose != USER {
            return match self.values.iter().find(|value| value.purpose() == purpose) {
                Some(value) => expire(&**value, (hash, key), time, &mut self.timers, cx),
                // Of a value that the program has no more.
                None => Ok(()),
            };
        }
        let time = Timestamp::from_millis(time);
        let mut cx = Cx { key, hash, time, timed: true, step: cx, timers: &mut self.timers };
        self.process.timer(&mut cx, Moment::EventTime(time))
    }
}

impl<K: StateKey, V: 'static, P: Process<K, V>> Step<K, V> for ProcessStep<K, P> {
    type Out = P::Out;

    fn properties(&self) -> Properties {
        let mut properties = self.process.properties().emits_event_time();
        for value in &self.values {
            if let Some(ttl) = value.ttl_ms() {
                let ttl = crate::window::in_words(ttl);
                properties =
                    properties.changeable(&format!("ttl of {}", value.name()), ttl).needs_event_time();
            }
        }
        properties
    }

    fn process(&mut self, input: &mut Batch<(K, V)>, step: &mut StepCx<P::Out>) -> Result<()> {
        let timed = !input.times.is_empty();
        let mut times = input.times.iter();
        for (at, ((key, value), hash)) in input.items.drain(..).zip(&input.hashes).enumerate() {
            if at.is_multiple_of(AHEAD) {
                let ahead = &input.hashes[at..input.hashes.len().min(at + AHEAD)];
                self.values.iter().for_each(|value| value.prefetch(ahead));
            }
            let time = times.next().map_or(Timestamp::MIN, |time| Timestamp::from_millis(*time));
            let mut cx =
                Cx { key: &key, hash: *hash, time, timed, step: &mut *step, timers: &mut self.timers };
            self.process.record(&mut cx, value)?;
        }
        Ok(())
    }

    fn advance(&mut self, _: Moment, step: &mut StepCx<P::Out>) -> Result<Advance> {
        for at in 0..SLICE {
            if step.is_full() {
                return Ok(Advance::More);
            }
            let Some((due, key)) = self.timers.next(step.watermark())? else { return Ok(Advance::Done) };
            if at.is_multiple_of(AHEAD) && !self.values.is_empty() {
                let keys = std::iter::once(&key).chain(self.timers.ahead());
                let hashes: Vec<u64> = keys.take(AHEAD).map(hash_key).collect();
                self.values.iter().for_each(|value| value.prefetch(&hashes));
            }
            self.fire::<V>(due, &key, step)?;
        }
        Ok(Advance::More)
    }
}
