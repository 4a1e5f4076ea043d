//! A sink that keeps nothing: for benchmarks, and for streams whose side effects are elsewhere.

use crate::nothing::Nothing;
use staunch_core::sink::{Guarantee, Prepared, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Result};
use std::future::Future;
use std::marker::PhantomData;

/// Throws records away.
pub fn sink<T: Send + 'static>() -> Discard<T> {
    Discard { record: PhantomData }
}

/// Throws records away; made by [`sink`].
#[derive(Clone, Copy, Debug)]
pub struct Discard<T> {
    record: PhantomData<fn(T)>,
}

impl<T: Send + 'static> Sink for Discard<T> {
    type Record = T;
    type Writer = Self;
    type Committer = Nothing;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(sink())
    }

    async fn committer(&self, context: &SinkContext) -> Result<Nothing> {
        Ok(Nothing::new(&context.sink))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }
}

impl<T: Send + 'static> SinkWriter for Discard<T> {
    type Record = T;

    async fn write(&mut self, records: Vec<T>) -> Result<()> {
        drop(records);
        Ok(())
    }

    fn cut(
        &mut self,
        _checkpoint: CheckpointId,
    ) -> Result<impl Future<Output = Result<Vec<Prepared>>> + Send + 'static> {
        Ok(async { Ok(Vec::new()) })
    }
}
