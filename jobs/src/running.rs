//! A job as a process: started, watched through its log and its metrics, killed.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often things are looked at while waiting for them.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running job. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Lines of standard error so far.
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a job; its log is kept, for [`Running::log`].
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let stderr = child.stderr.take().context("standard error is a pipe")?;
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { child, log, reader: Some(reader) })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL; returns once it is gone.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the job")?;
        self.child.wait().context("cannot wait for the job")?;
        Ok(())
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot look at the job")
    }

    /// Waits until it ends by itself; after that the log is complete.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self, longest: Duration) -> Result<ExitStatus> {
        let Some(status) = until(longest, || self.ended().transpose()) else {
            bail!("the job still runs after {longest:?}; its log:\n{}", self.log().join("\n"));
        };
        if let Some(reader) = self.reader.take() {
            // It ends when the pipe does, and cannot panic.
            let _ = reader.join();
        }
        status
    }

    /// The lines of its log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fields of the newest entry of a log in JSON whose message begins like this.
    pub fn logged(&self, message: &str) -> Option<Value> {
        self.log().iter().rev().find_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let fields = entry.get("fields")?;
            fields.get("message")?.as_str()?.starts_with(message).then(|| fields.clone())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not there any more is what is wanted.
        let _ = self.kill();
    }
}

/// Looks again and again, until there is something or the time is over.
pub fn until<T>(longest: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + longest;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A loopback address on which nobody listens at this moment.
///
/// # Errors
/// There is no free port.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    listener.local_addr().context("no free port")
}

/// The metrics of a job at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks a job for its metrics; `None` if it does not answer (yet, or any more).
    pub fn of(address: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        if !head.starts_with("HTTP/1.1 200") {
            return None;
        }
        let values = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Some(Self(values.collect()))
    }

    /// The sum of a metric over all series that have these labels, written like `step="flights"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = self.0.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        of_name
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// The names of all metrics.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|series| series.split('{').next())
    }
}
