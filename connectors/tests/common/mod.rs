//! Helpers of the connectors' tests: a checkpoint storage in memory that can be told to fail, a job's
//! life by hand, and reading a split by hand.
#![allow(dead_code, unreachable_pub)]

pub mod life;
pub mod windows;

use staunch_core::source::{DeadLetter, Progress, Records, Source, SplitReader};
use staunch_core::{Result, Storage};
use staunch_state::storage::{Put, StorageError};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

pub fn run<R>(work: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A checkpoint storage in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    pub fail_put: AtomicBool,
    pub fail_get: AtomicBool,
    pub fail_delete: AtomicBool,
}

impl MemoryStorage {
    pub fn names(&self) -> Vec<String> {
        self.blobs.lock().unwrap().keys().cloned().collect()
    }

    pub fn lose(&self, name: &str) {
        assert!(self.blobs.lock().unwrap().remove(name).is_some());
    }

    fn io(&self, fail: &AtomicBool, action: &'static str, name: &str) -> Result<(), StorageError> {
        if !fail.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (name, place, source) = (name.to_owned(), self.place(), io::Error::other("told to fail"));
        Err(StorageError::Io { action, name, place, source })
    }
}

impl Storage for MemoryStorage {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.io(&self.fail_put, "write", name)?;
        self.blobs.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn put_file(&self, name: &str, from: &Path) -> Result<(), StorageError> {
        self.put(name, &std::fs::read(from).unwrap())
    }

    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<Put, StorageError> {
        if self.blobs.lock().unwrap().contains_key(name) {
            return Ok(Put::Exists);
        }
        self.put(name, bytes).map(|()| Put::Created)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.io(&self.fail_get, "read", name)?;
        let found = self.blobs.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| StorageError::NotFound { name: name.to_owned(), place: self.place() })
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        Ok(self.get(name)?[offset as usize..][..length as usize].to_vec())
    }

    fn get_file(&self, name: &str, to: &Path) -> Result<(), StorageError> {
        std::fs::write(to, self.get(name)?).unwrap();
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        Ok(self.names().into_iter().filter(|name| name.starts_with(prefix)).collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.io(&self.fail_delete, "delete", name)?;
        self.blobs.lock().unwrap().remove(name);
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
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
