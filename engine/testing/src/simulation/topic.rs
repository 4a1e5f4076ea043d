//! A simulated input: splits of numbered records that come in pieces of random size, with pauses.

use super::fate::Fate;
use serde::{Deserialize, Serialize};
use staunch::core::context::SourceContext;
use staunch::core::source::{Progress, Records, Source, SplitReader};
use staunch::core::{Error, Result};
use std::task::Context;
use std::time::Duration;

/// A record: where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its split.
    pub split: u32,
    /// Its index in the split.
    pub index: u64,
}

/// The input, as the process with this fate sees it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Number of the first split.
    pub first: u32,
    /// Records of each split.
    pub lengths: Vec<u64>,
    /// Polls that find nothing, out of a thousand.
    pub pauses: u64,
    /// Of the process that reads.
    pub fate: Fate,
}

impl Source for Topic {
    type Record = Record;
    type Split = u32;
    type Position = u64;
    type Reader = Reader;

    async fn splits(&self, _: &SourceContext) -> Result<Vec<(String, u32)>> {
        let end = self.first + self.lengths.len() as u32;
        Ok((self.first..end).map(|split| (format!("split-{split:03}"), split)).collect())
    }

    async fn open(&self, split: u32, at: Option<u64>, _: &SourceContext) -> Result<Reader> {
        tokio::time::sleep(Duration::from_millis(self.fate.below(4))).await;
        let end = split.checked_sub(self.first).and_then(|place| self.lengths.get(place as usize)).copied();
        let end = end.ok_or_else(|| Error::external(format!("there is no split {split}")))?;
        let next = at.unwrap_or(0);
        self.fate.note(format_args!("reads split {split} from {next}"));
        Ok(Reader { split, next, end, pauses: self.pauses, fate: self.fate.clone() })
    }
}

/// Reads one split.
#[derive(Debug)]
pub struct Reader {
    split: u32,
    next: u64,
    end: u64,
    pauses: u64,
    fate: Fate,
}

impl SplitReader for Reader {
    type Record = Record;
    type Position = u64;

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Records<Record>) -> Result<Progress> {
        if self.next == self.end {
            return Ok(Progress::End);
        }
        if self.fate.below(1000) < self.pauses {
            // In a simulation nothing comes by itself: the next poll finds it.
            cx.waker().wake_by_ref();
            return Ok(Progress::Idle);
        }
        let most = (self.end - self.next).min(out.room() as u64).min(12);
        let count = 1 + self.fate.below(most.max(1));
        for index in self.next..self.next + count {
            out.push(Record { split: self.split, index }, size_of::<Record>());
        }
        self.next += count;
        Ok(if self.next == self.end { Progress::End } else { Progress::Ready })
    }

    fn position(&self) -> u64 {
        self.next
    }
}
