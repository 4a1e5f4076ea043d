//! The committer of sinks that prepare nothing.

use staunch_core::sink::{CommitError, Committer};
use staunch_core::{Committable, Error, Result};

/// Has nothing to commit, and says so if it is given something.
#[derive(Debug)]
pub struct Nothing {
    sink: String,
}

impl Nothing {
    pub(crate) fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned() }
    }

    fn refuse_any(&self, listed: &[Committable]) -> Result<()> {
        let Some(first) = listed.first() else { return Ok(()) };
        Err(Error::job(format!(
            "the checkpoint lists {} records of sink `{}` (checkpoint {}) that are not committed, but this kind \
             of sink prepares nothing; was the sink replaced under the same name? Run the old program until it \
             stops cleanly, or give the new sink a new name",
            first.records, self.sink, first.checkpoint
        )))
    }
}

impl Committer for Nothing {
    async fn recover(&mut self, listed: &[Committable]) -> Result<Vec<String>> {
        self.refuse_any(listed).map(|()| Vec::new())
    }

    async fn commit(&mut self, committables: &[Committable]) -> Result<(), CommitError> {
        self.refuse_any(committables).map_err(CommitError::Refused)
    }
}
