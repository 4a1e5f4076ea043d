//! The line on a terminal that says how the job is doing. It knows the job's metrics and nothing else of it.

use crate::output;
use staunch_core::Metrics;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How often the line is written.
const EVERY: Duration = Duration::from_secs(1);

/// Shows the line until it is dropped.
pub(crate) struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// If there is no thread for it, there is no line: that is no reason to end a job.
    pub(crate) fn show(metrics: Metrics) -> Self {
        let (end, ended) = channel::<()>();
        let body = move || {
            let mut before = (Instant::now(), 0);
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let now = (Instant::now(), metrics.progress().records_read);
                let rate = now.1.saturating_sub(before.1) as f64 / (now.0 - before.0).as_secs_f64();
                output::show_line(&line(&metrics.progress(), rate, SystemTime::now()));
                before = now;
            }
            output::show_line("");
        };
        let thread = std::thread::Builder::new().name("staunch-progress".into()).spawn(body).ok();
        Self { end: Some(end), thread }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which is logged.
            let _ = thread.join();
        }
    }
}

fn line(progress: &staunch_core::Progress, rate: f64, now: SystemTime) -> String {
    let mut line = format!("{} records, {rate:.0}/s", progress.records_read);
    if progress.last_checkpoint > 0 {
        line += &format!(" | checkpoint {}", progress.last_checkpoint);
    }
    if progress.checkpoint_age >= 1.0 {
        line += &format!(", {:.0} s of input not covered yet", progress.checkpoint_age);
    }
    let behind = progress.watermark_lag.and_then(|lag| Some((lag, Duration::try_from_secs_f64(lag).ok()?)));
    if let Some((lag, behind)) = behind
        && lag > 0.0
        && let Some(at) = now.checked_sub(behind)
    {
        line += &format!(" | watermark {}, {lag:.1} s behind", humantime::format_rfc3339_seconds(at));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_records_rate_checkpoint_and_nothing_of_what_there_is_not() {
        let progress = Metrics::new("job").progress();
        assert_eq!(line(&progress, 12.4, SystemTime::UNIX_EPOCH), "0 records, 12/s");
    }
}
