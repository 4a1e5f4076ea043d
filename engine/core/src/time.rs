//! Event time: when something happened, as opposed to when it is processed.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// A moment, in milliseconds since the Unix epoch (UTC). Negative before 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment.
    pub const MIN: Self = Self(i64::MIN + 1);
    /// The latest moment; as a watermark it says that nothing more will come.
    pub const MAX: Self = Self(i64::MAX);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        // i64::MIN is kept free: inside the engine it means "no event time".
        Self(if millis == i64::MIN { i64::MIN + 1 } else { millis })
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment moved later, stopping at [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// This moment moved earlier, stopping at [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(millis(by)))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self::from_millis(-millis(before.duration())),
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_millisecond())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// How a source's records get their event time, and how far out of order they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventTimePolicy {
    /// A record may be this much earlier than the latest one of its split. The watermark stays that
    /// far behind, and windows fire that much later.
    pub lateness: Duration,
    /// A split without records for so long no longer holds the watermark back. `None`: it always does.
    pub idle_after: Option<Duration>,
}
