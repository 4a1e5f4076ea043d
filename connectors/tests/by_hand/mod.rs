//! Reading a split by hand and damaging what is stored, for what is particular to one connector.
#![allow(dead_code, unreachable_pub)]

use staunch_core::Result;
use staunch_core::context::SourceContext;
use staunch_core::source::{DeadLetter, Progress, Records, Source, SplitReader};
use std::future::Future;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

pub fn run<R>(work: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Damaged forms of stored bytes: at 200 places each a flipped bit and a cut, and `others`, which are whole
/// files of the same kind. The same ones in each run.
pub fn damaged(good: &[u8], others: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % limit
    };
    let mut forms = Vec::new();
    for _ in 0..200 {
        let (at, bit) = (below(good.len()), below(8));
        let mut flipped = good.to_vec();
        flipped[at] ^= 1 << bit;
        forms.push((format!("bit {bit} of byte {at} flipped"), flipped));
        forms.push((format!("cut to {at} bytes"), good[..at].to_vec()));
    }
    forms.extend(others.iter().enumerate().map(|(n, other)| (format!("swapped with {n}"), other.clone())));
    forms
}

/// What was polled, and how it ended.
pub struct Polled<T> {
    pub records: Vec<T>,
    pub bad: Vec<DeadLetter>,
    pub progress: Progress,
}

/// Polls a reader by hand until it ends, has handed out what is wanted, or fails. For up to 128 batches:
/// more use up tokio's budget for one task, and the channel of a background reader stays pending.
pub fn poll<R: SplitReader>(reader: &mut R, until: impl Fn(&[R::Record]) -> bool) -> Result<Polled<R::Record>>
where
    R::Record: Clone,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut out = Records::with_limit(usize::MAX);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let progress = reader.poll(&mut cx, &mut out)?;
        let (records, bad) = (out.records().to_vec(), out.bad_input().to_vec());
        if progress == Progress::End || until(&records) {
            return Ok(Polled { records, bad, progress });
        }
        assert!(Instant::now() < deadline, "no end after 20 s: {} records", records.len());
        if progress == Progress::Idle {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where a source is that runs in no job.
pub fn here() -> SourceContext {
    SourceContext::alone("by-hand")
}

/// All records of a source that ends, split by split.
pub async fn read_all<S: Source>(source: &S) -> Result<Vec<(String, Vec<S::Record>, Vec<DeadLetter>)>>
where
    S::Record: Clone,
{
    let mut all = Vec::new();
    for (id, split) in source.splits(&here()).await? {
        let mut reader = source.open(split, None, &here()).await?;
        let polled = poll(&mut reader, |_| false)?;
        all.push((id, polled.records, polled.bad));
    }
    Ok(all)
}
