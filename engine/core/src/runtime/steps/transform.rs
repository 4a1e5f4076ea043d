//! Stateless steps and joins of streams: no state, no capability held, no cost at a barrier.

use crate::batch::{BATCH_RECORDS, Batch};
use crate::runtime::Flow;
use crate::runtime::life::worker::Site;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator;

/// Collects output and ships it in batches of a good size.
pub(crate) struct Emitter<'a, U> {
    pub(crate) batch: Batch<U>,
    ship: &'a mut dyn FnMut(&mut Batch<U>),
}

impl<U> Emitter<'_, U> {
    pub(crate) fn ship_if_full(&mut self) {
        if self.batch.len() >= BATCH_RECORDS {
            self.ship();
        }
    }

    fn ship(&mut self) {
        if !self.batch.is_empty() {
            (self.ship)(&mut self.batch);
            self.batch = Batch::default();
        }
    }
}

/// Applies `logic` to every batch. What it leaves in the emitter is shipped after each call; it must have event times
/// if the stream is `timed`.
pub(crate) fn each_batch<'s, T: 'static, U: 'static>(
    site: &Site<'s>,
    flow: Flow<'s, T>,
    name: &'static str,
    timed: bool,
    mut logic: impl FnMut(Batch<T>, &mut Emitter<'_, U>) + 'static,
) -> Flow<'s, U> {
    let live = site.live.clone();
    flow.unary::<NoopBuilder<Batch<U>>, _, _, _>(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|time, batch| {
                let mut session = output.session_with_builder(&time);
                let mut ship = |batch: &mut Batch<U>| match (batch.check_times(timed), &live) {
                    (Err(error), Some(worker)) => worker.shared.fail(error.in_step(name)),
                    _ => session.give_container(batch),
                };
                let mut emitter = Emitter { batch: Batch::default(), ship: &mut ship };
                logic(std::mem::take(batch), &mut emitter);
                emitter.ship();
            });
        }
    })
}

/// The records of both.
pub(crate) fn union<'s, T: 'static>(one: Flow<'s, T>, other: Flow<'s, T>) -> Flow<'s, T> {
    one.concat(other)
}
