//! Real servers for tests of connectors: those that `.ci/servers` started, and ones of a test's own to kill.
//!
//! Promises that a test without its server says so once, in the line that `make test` counts, and that a server of
//! a test's own is gone with it. Knows nothing of what the servers are; `.ci/servers` does.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory of what goes on, for `.ci/servers` and from it.
const DIRECTORY: &str = "STAUNCH_SERVERS";

/// The address in a variable that `.ci/servers up` exports, as `STAUNCH_KAFKA` or `STAUNCH_KAFKA_TLS`. Without it the
/// reason is printed as a `SKIPPED:` line: ask once a test, and return if there is none.
///
/// ```no_run
/// use staunch_testing::servers;
///
/// # fn main() {
/// let Some(broker) = servers::address("STAUNCH_KAFKA") else { return };
/// # drop(broker);
/// # }
/// ```
#[must_use]
pub fn address(variable: &str) -> Option<String> {
    let found = look_up(variable, |name| env::var(name).ok());
    found.inspect_err(|reason| println!("SKIPPED: {reason}")).ok()
}

/// The value of a variable, or why there is none.
fn look_up(variable: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    if let Some(address) = value(variable).filter(|value| !value.is_empty()) {
        return Ok(address);
    }
    let server = variable.split('_').nth(1).unwrap_or(variable);
    let script = server.to_lowercase();
    Err(match value(&format!("STAUNCH_{server}_MISSING")) {
        Some(reason) => format!("{script} cannot be had: {reason}"),
        None => format!("{variable} is not set; eval \"$(.ci/servers up {script})\" starts the server"),
    })
}

/// A server of a test's own, which it may kill. It is ended and its data are deleted when this is dropped.
#[derive(Debug)]
pub struct Own {
    name: &'static str,
    directory: PathBuf,
    gives: BTreeMap<String, String>,
}

impl Own {
    /// Starts a server with nothing in it, if the variable is set, as a sign that servers can be had here. Otherwise
    /// the reason is printed as a `SKIPPED:` line, as [`address`] does it.
    ///
    /// # Panics
    /// The server does not start although another of its kind did.
    #[must_use]
    pub fn up(name: &'static str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        address(&format!("STAUNCH_{}", name.to_uppercase()))?;
        let all = env::var_os(DIRECTORY).map_or_else(env::temp_dir, PathBuf::from);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = all.join("own").join(format!("{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for a server");
        let mut own = Self { name, directory, gives: BTreeMap::new() };
        own.start();
        Some(own)
    }

    /// The value of a variable as `.ci/servers up` prints it.
    ///
    /// # Panics
    /// This server does not give it.
    #[must_use]
    pub fn address(&self, variable: &str) -> String {
        self.gives.get(variable).unwrap_or_else(|| panic!("{variable} is not in {:?}", self.gives)).clone()
    }

    /// The process that is the server.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let file = self.directory.join(self.name).join("pid");
        let text = std::fs::read_to_string(file).expect("the pid of a server");
        text.trim().parse().expect("a pid")
    }

    /// Kills it with SIGKILL. Its data and ports stay.
    pub fn kill(&self) {
        run(&self.directory, "kill", self.name);
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    pub fn start(&mut self) {
        let said = run(&self.directory, "up", self.name);
        self.gives = exports(&said);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let (directory, name) = (&self.directory, self.name);
        let done = command(directory, "down", name).output();
        if !done.is_ok_and(|done| done.status.success()) {
            eprintln!(".ci/servers down {name} failed, in {}", directory.display());
        }
        std::fs::remove_dir_all(directory).ok();
    }
}

fn command(directory: &Path, what: &str, name: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/servers");
    let mut command = Command::new(script);
    command.args([what, name]).env(DIRECTORY, directory);
    command
}

fn run(directory: &Path, what: &str, name: &str) -> String {
    let done = command(directory, what, name).output().expect(".ci/servers can be run");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), ".ci/servers {what} {name}: {error}");
    String::from_utf8(done.stdout).expect("addresses are text")
}

/// The variables of lines `export NAME=VALUE`. Addresses and paths of temporary files need no quotes.
fn exports(said: &str) -> BTreeMap<String, String> {
    let pairs = said.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_missing_says_why_and_one_that_nobody_asked_for_how_to_start_it() {
        let nothing = |_: &str| None;
        let error = look_up("STAUNCH_KAFKA_TLS", nothing).unwrap_err();
        assert!(error.contains("STAUNCH_KAFKA_TLS is not set"), "{error}");
        assert!(error.contains(".ci/servers up kafka"), "{error}");
        let missing = |name: &str| (name == "STAUNCH_KAFKA_MISSING").then(|| "no Java".to_owned());
        let error = look_up("STAUNCH_KAFKA_TLS", missing).unwrap_err();
        assert_eq!(error, "kafka cannot be had: no Java");
        let there = |name: &str| (name == "STAUNCH_KAFKA").then(|| "127.0.0.1:1".to_owned());
        assert_eq!(look_up("STAUNCH_KAFKA", there).unwrap(), "127.0.0.1:1");
    }

    #[test]
    fn a_server_of_a_tests_own_survives_a_kill_and_is_gone_with_it() {
        let Some(mut own) = Own::up("postgres") else { return };
        let (address, pid, directory) = (own.address("STAUNCH_POSTGRES"), own.pid(), own.directory.clone());
        assert_ne!(Some(&address), env::var("STAUNCH_POSTGRES").ok().as_ref());
        own.kill();
        own.start();
        assert_eq!(own.address("STAUNCH_POSTGRES"), address, "the ports stay");
        assert_ne!(own.pid(), pid);
        drop(own);
        assert!(!directory.exists());
    }
}
