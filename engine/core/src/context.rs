//! What the engine tells a connector about where it runs, and what the connectors of one process share.
//!
//! A source or sink value is built once for the plan and once on each worker, so nothing that is kept in it is
//! shared. What is to be one for the whole process (a client, a pool of connections) is kept in
//! [`SharedValues`], which lives as long as the run.

use crate::error::Result;
use crate::metrics::Metrics;
use staunch_checkpoint::Generation;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Values that all sources and sinks of a job share in one process, by type and key. Clones are the same map; it
/// is dropped when the run is over.
#[derive(Clone, Default)]
pub struct SharedValues {
    cells: Arc<Mutex<HashMap<(TypeId, String), Arc<dyn Any + Send + Sync>>>>,
}

impl fmt::Debug for SharedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("SharedValues").field("values", &cells.len()).finish()
    }
}

impl SharedValues {
    /// The value of this type under this key; `init` makes it if nobody has. Several that ask at once wait for
    /// one `init`. One that fails leaves nothing behind: the next that asks tries again. Whatever makes two values
    /// differ (an address, a user) belongs into the key.
    ///
    /// # Errors
    /// Those of `init`.
    pub async fn get<T, F>(&self, key: &str, init: F) -> Result<Arc<T>>
    where
        T: Send + Sync + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            let empty = || -> Arc<dyn Any + Send + Sync> { Arc::new(OnceCell::<Arc<T>>::new()) };
            Arc::clone(cells.entry((TypeId::of::<T>(), key.to_owned())).or_insert_with(empty))
        };
        let cell = cell.downcast::<OnceCell<Arc<T>>>().expect("the key holds the type of the value");
        let value = cell.get_or_try_init(|| async { init.await.map(Arc::new) }).await?;
        Ok(Arc::clone(value))
    }
}

/// A figure of a connector's own, shown as `staunch_connector` with the label `figure`.
#[derive(Clone, Debug)]
pub struct Figure(pub(crate) prometheus::Gauge);

impl Figure {
    /// It is this now.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// It is so much more now.
    pub fn add(&self, more: f64) {
        self.0.add(more);
    }
}

/// Who a source is, in its job.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// Name of the job.
    pub job: String,
    /// Name of the source.
    pub source: String,
    /// This instance (worker); 0 while splits are listed, which is done once for all.
    pub instance: u32,
    /// Number of instances.
    pub instances: u32,
    /// Start count of the job.
    pub generation: Generation,
    /// True if the job starts from nothing: no position of any split is known yet.
    pub fresh: bool,
    /// How long the call may take. The run ends with an error if it takes longer.
    pub deadline: Duration,
    /// What the connectors of the process share.
    pub shared: SharedValues,
    pub(crate) metrics: Metrics,
}

impl SourceContext {
    /// A context outside of any job, with one instance: for tests of connectors.
    #[must_use]
    pub fn alone(source: &str) -> Self {
        Self {
            job: "alone".into(),
            source: source.to_owned(),
            instance: 0,
            instances: 1,
            generation: Generation(1),
            fresh: true,
            deadline: Duration::from_secs(60),
            shared: SharedValues::default(),
            metrics: Metrics::new("alone"),
        }
    }

    /// A figure of the connector's own (a lag, requests in flight), by name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Figure {
        Figure(self.metrics.connector(&self.source, self.instance, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[tokio::test]
    async fn what_is_shared_is_made_once_by_type_and_key_and_again_after_a_failure() {
        let (values, made) = (SharedValues::default(), AtomicU32::new(0));
        let failed = values.get::<u32, _>("a", async { Err(Error::external("away")) }).await;
        assert!(failed.is_err());
        let make = || async { Ok(made.fetch_add(1, SeqCst)) };
        let other = values.clone();
        let (one, two) = tokio::join!(values.get("a", make()), other.get("a", make()));
        assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
        assert_eq!(made.load(SeqCst), 1);
        assert_eq!(*values.get("b", make()).await.unwrap(), 1);
        assert_eq!(*values.get::<u64, _>("a", async { Ok(7) }).await.unwrap(), 7);
    }

    #[test]
    fn a_figure_of_a_connector_is_shown_with_its_step_and_worker() {
        let context = SourceContext::alone("in");
        context.figure("lag").set(2.0);
        context.figure("lag").add(0.5);
        let text = context.metrics.render().unwrap();
        let line = text.lines().find(|line| line.starts_with("staunch_connector{")).unwrap();
        assert!(
            line.contains("figure=\"lag\"") && line.contains("step=\"in\"") && line.ends_with(" 2.5"),
            "{line}"
        );
    }
}
