//! Side outputs of any number and type through one port of the dataflow.
//!
//! A port would cost agreement on progress for each, and side outputs are rare. So a batch of one travels in a box, with the
//! number of its output, and whoever wants that output takes it out. Within a worker only: nothing here is sent to another.

use crate::batch::Batch;
use crate::error::Result;
use crate::runtime::Flow;
use crate::runtime::process::tick::Tick;
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use timely::Accountable;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

/// A batch of one of the side outputs.
#[derive(Clone, Default)]
pub(crate) struct Sided {
    side: usize,
    records: usize,
    /// Shared by all who look whether it is theirs; one takes it.
    batch: Rc<RefCell<Option<Box<dyn Any>>>>,
}

impl Accountable for Sided {
    fn record_count(&self) -> i64 {
        self.records as i64
    }
}

/// All side outputs of a step.
#[derive(Clone)]
pub(crate) struct SideFlow<'s>(pub(super) timely::dataflow::Stream<'s, Tick, Sided>);

impl<'s> SideFlow<'s> {
    /// The output of this number. Each can be had once.
    pub(crate) fn pick<T: 'static>(&self, name: &str, side: usize) -> Flow<'s, T> {
        self.0.clone().unary::<NoopBuilder<Batch<T>>, _, _, _>(Pipeline, name, move |_, _| {
            move |input, output| {
                input.for_each(|time, sided| {
                    let sided = std::mem::take(sided);
                    if sided.side != side {
                        return;
                    }
                    let batch = sided.batch.borrow_mut().take();
                    if let Some(mut batch) = batch.and_then(|batch| batch.downcast::<Batch<T>>().ok()) {
                        output.session_with_builder(&time).give_container(&mut batch);
                    }
                });
            }
        })
    }
}

/// The engine's end of a side output.
pub(crate) trait SidePort {
    /// What the step has put out since the last call, checked: `timed` is whether its records must have event times.
    fn take(&mut self, side: usize, timed: bool) -> Result<Option<Sided>>;
}

impl<T: 'static> SidePort for Rc<RefCell<Batch<T>>> {
    fn take(&mut self, side: usize, timed: bool) -> Result<Option<Sided>> {
        let mut open = self.borrow_mut();
        if open.is_empty() {
            return Ok(None);
        }
        let mut batch = std::mem::take(&mut *open);
        if !timed {
            batch.times.clear();
        }
        batch.check_times(timed)?;
        let records = batch.len();
        Ok(Some(Sided { side, records, batch: Rc::new(RefCell::new(Some(Box::new(batch)))) }))
    }
}
