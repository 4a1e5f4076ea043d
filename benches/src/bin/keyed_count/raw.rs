//! The programs beside which the engine is measured: timely alone, with a state of one's own.
//!
//! Source, exchange, count, sink, two workers: the shape of the engine's job. The source holds back as
//! the engine's does, because timely alone would queue without bound, but there is no clock, no
//! alignment, no dirty list, no checkpoint.

use crate::variant::{Measured, WORKERS};
use crate::watch::watch;
use anyhow::{Result, anyhow};
use benches::keys::{key, mix};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::probe::{Handle, Probe};
use timely::dataflow::{Scope, Stream};

/// Records of one timestamp and worker.
const ROUND: u64 = 65_536;
/// Timestamps in flight.
const ROUNDS_AHEAD: usize = 4;
/// Records made before the other operators get their turn.
const TURN: u64 = 4096;

/// The state of one worker.
pub trait Counts: 'static {
    /// Counts a batch of keys and appends each key with its new count.
    fn count(&mut self, keys: &[u64], out: &mut Vec<(u64, u64)>) -> Result<()>;
}

impl<S: BuildHasher + 'static> Counts for HashMap<u64, u64, S> {
    fn count(&mut self, keys: &[u64], out: &mut Vec<(u64, u64)>) -> Result<()> {
        out.extend(keys.iter().map(|key| {
            let count = self.entry(*key).or_insert(0);
            *count += 1;
            (*key, *count)
        }));
        Ok(())
    }
}

/// Hashes integers about as fast as it can be done well: one 128-bit multiplication.
#[derive(Clone, Copy, Default)]
pub struct FastHash(u64);

impl Hasher for FastHash {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// What the measuring thread and the workers share.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    ready: AtomicUsize,
    counted: AtomicU64,
}

/// The worker of a key: what timely's exchange does with [`mix`] of it.
pub fn owner(key: u64) -> usize {
    mix(key) as usize % WORKERS
}

/// Runs the dataflow for about `seconds`; `open` makes the state of a worker, which has its keys
/// already if `filled`.
pub fn measure<C: Counts>(
    keys: u64,
    seconds: f64,
    filled: bool,
    open: impl Fn(usize) -> Result<C> + Send + Sync + 'static,
) -> Result<Measured> {
    let progress = Arc::new(Progress::default());
    let first = if filled { keys } else { 0 };
    progress.counted.store(first, Relaxed);
    let shared = Arc::clone(&progress);
    let guards = timely::execute(timely::Config::process(WORKERS), move |worker| -> Result<()> {
        let (index, progress) = (worker.index(), Arc::clone(&shared));
        let counts = open(index)?;
        progress.ready.fetch_add(1, Relaxed);
        worker.dataflow::<u64, _, _>(|scope| {
            let probe = Handle::new();
            let numbers = source(scope, keys, first, index, probe.clone(), Arc::clone(&progress));
            let counted = count(numbers, counts, progress);
            discard(counted).probe_with(&probe);
        });
        while worker.has_dataflows() {
            worker.step();
        }
        Ok(())
    })
    .map_err(|error| anyhow!("timely did not start: {error}"))?;
    while progress.ready.load(Relaxed) < WORKERS {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let measured = watch(keys, seconds, || Ok(progress.counted.load(Relaxed)), || Ok(()));
    progress.stop.store(true, Relaxed);
    for ended in guards.join() {
        ended.map_err(|error| anyhow!("a worker failed: {error}"))??;
    }
    measured
}

fn source<'s>(
    scope: Scope<'s, u64>,
    keys: u64,
    first: u64,
    worker: usize,
    probe: Handle<u64>,
    progress: Arc<Progress>,
) -> Stream<'s, u64, Vec<u64>> {
    let mut builder = OperatorBuilder::new("numbers".into(), scope);
    let (output, stream) = builder.new_output::<Vec<u64>>();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<u64>>>::from(output);
    let again = scope.activator_for(builder.operator_info().address);
    builder.build(move |mut capabilities| {
        let mut held = capabilities.pop();
        let (mut index, mut unfinished) =
            (first.div_ceil(WORKERS as u64).next_multiple_of(ROUND), VecDeque::new());
        move |_| {
            if progress.stop.load(Relaxed) {
                held = None;
            }
            let Some(capability) = held.as_mut() else { return };
            again.activate();
            while unfinished.front().is_some_and(|round| !probe.less_equal(round)) {
                unfinished.pop_front();
            }
            if unfinished.len() >= ROUNDS_AHEAD {
                return;
            }
            let mut output = output.activate();
            let mut session = output.session(&*capability);
            for at in index..index + TURN {
                session.give(key(keys, worker as u32, WORKERS as u64, at));
            }
            drop(session);
            index += TURN;
            if index % ROUND == 0 {
                unfinished.push_back(*capability.time());
                capability.downgrade(&(index / ROUND));
            }
        }
    });
    stream
}

fn count<C: Counts>(
    numbers: Stream<'_, u64, Vec<u64>>,
    mut counts: C,
    progress: Arc<Progress>,
) -> Stream<'_, u64, Vec<(u64, u64)>> {
    let by_key = Exchange::new(|key: &u64| mix(*key));
    numbers.unary::<CapacityContainerBuilder<Vec<(u64, u64)>>, _, _, _>(by_key, "count", move |_, _| {
        move |input, output| {
            input.for_each(|time, batch| {
                let mut counted = Vec::with_capacity(batch.len());
                counts.count(batch, &mut counted).expect("the state of a benchmark works");
                progress.counted.fetch_add(batch.len() as u64, Relaxed);
                output.session(&time).give_container(&mut counted);
            });
        }
    })
}

/// Consumes the counts; the output carries nothing but progress.
fn discard(counted: Stream<'_, u64, Vec<(u64, u64)>>) -> Stream<'_, u64, Vec<()>> {
    counted.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "nowhere", |_, _| {
        move |input, _| {
            input.for_each(|_, batch| {
                std::hint::black_box(&batch);
                batch.clear();
            });
        }
    })
}
