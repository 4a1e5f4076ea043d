//! Reading a split by hand, for what is particular to one connector.
#![allow(dead_code, unreachable_pub)]

use staunch_core::Result;
use staunch_core::source::{DeadLetter, Progress, Records, Source, SplitReader};
use std::future::Future;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

pub fn run<R>(work: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
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

/// All records of a source that ends, split by split.
pub async fn read_all<S: Source>(source: &S) -> Result<Vec<(String, Vec<S::Record>, Vec<DeadLetter>)>>
where
    S::Record: Clone,
{
    let mut all = Vec::new();
    for (id, split) in source.splits().await? {
        let mut reader = source.open(split, None).await?;
        let polled = poll(&mut reader, |_| false)?;
        all.push((id, polled.records, polled.bad));
    }
    Ok(all)
}
