//! The one error of a job: what went wrong, in which step, and whose fault it is.

use std::fmt;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is; decides what helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The job program, its arguments or its data: running it again changes nothing.
    Job,
    /// The world outside (disk, server, network): running it again may help.
    External,
    /// A broken promise inside the engine: a bug of ours.
    Internal,
}

/// An error of a job.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    step: Option<String>,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the job program, its arguments or its data.
    pub fn job(message: impl Into<String>) -> Self {
        Self::new(Kind::Job, message)
    }

    /// An error of the world outside.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(Kind::External, message)
    }

    /// A bug of the engine or of a connector.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, step: None, message: message.into(), source: None }
    }

    /// The same error with what caused it; the cause is printed after a colon.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the name of the step in which it happened, unless it has one already.
    #[must_use]
    pub fn in_step(mut self, step: impl Into<String>) -> Self {
        self.step.get_or_insert_with(|| step.into());
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong and what caused it, without the step.
    pub(crate) fn text(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(source) = cause {
            text.push_str(&format!(": {source}"));
            cause = source.source();
        }
        text
    }

    /// The step in which it happened.
    pub fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "step `{step}`: ")?;
        }
        f.write_str(&self.text())?;
        if self.kind == Kind::Internal {
            f.write_str(" (this is a bug in Staunch or in a connector; please report it)")?;
        }
        Ok(())
    }
}

// The causes are part of the text, so that every printer shows them; `source` would repeat them.
impl std::error::Error for Error {}

impl From<staunch_state::storage::StorageError> for Error {
    fn from(error: staunch_state::storage::StorageError) -> Self {
        Self::external(error.to_string())
    }
}
