//! A reader of the committed files who looks all the time, and remembers.

use jobs::output;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that checks, while a job runs and dies, that what is committed stays as it is and that no key is
/// published twice.
pub struct Observer {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Watch, String>>,
}

/// What has been seen so far.
#[derive(Default)]
struct Watch {
    files: BTreeMap<String, String>,
    keys: BTreeSet<String>,
    looks: u64,
}

impl Observer {
    /// Watches an output directory. The key says which part of a line may be published only once.
    pub fn of(output: &Path, key: fn(&str) -> String) -> Self {
        let (over, output) = (Arc::new(AtomicBool::new(false)), output.to_owned());
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || watch(output, key, &over)
        });
        Self { over, thread }
    }

    /// Stops; panics if something was wrong at any time. Returns how many files were seen, in how many looks.
    pub fn finish(self) -> (usize, u64) {
        self.over.store(true, SeqCst);
        let seen = self.thread.join().expect("the observer does not panic");
        let watch = seen.unwrap_or_else(|wrong| panic!("a reader of the output saw: {wrong}"));
        (watch.files.len(), watch.looks)
    }
}

fn watch(output: PathBuf, key: fn(&str) -> String, over: &AtomicBool) -> Result<Watch, String> {
    let mut watch = Watch::default();
    loop {
        // Looks once more after the end.
        let last = over.load(SeqCst);
        watch.look(&output, key)?;
        if last {
            return Ok(watch);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

impl Watch {
    fn look(&mut self, output: &Path, key: fn(&str) -> String) -> Result<(), String> {
        let now = output::committed(output).map_err(|e| format!("{e:#}"))?;
        self.looks += 1;
        for (name, text) in &self.files {
            match now.get(name) {
                None => return Err(format!("{name} disappeared")),
                Some(other) if other != text => return Err(format!("{name} changed")),
                Some(_) => {}
            }
        }
        for (name, text) in now {
            if self.files.contains_key(&name) {
                continue;
            }
            if !text.ends_with('\n') {
                return Err(format!("{name} ends in the middle of a line"));
            }
            for line in text.lines() {
                if !self.keys.insert(key(line)) {
                    return Err(format!("{line} in {name} was published before"));
                }
            }
            self.files.insert(name, text);
        }
        Ok(())
    }
}

/// The key of a line of `flight_delays`: airport and hour.
pub fn airport_and_hour(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).expect("a committed line is JSON");
    format!("{} {}", line["origin"], line["hour"])
}
