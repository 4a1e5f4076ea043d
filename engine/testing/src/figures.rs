//! Figures to publish, and where they come from.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// The value below which `percent` of the sorted ones are.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    let value = sorted.get(at).copied().unwrap_or_default();
    Duration::from_millis(value.as_millis() as u64)
}

/// The head of a result: machine, load, commit and command, a line each.
#[must_use]
pub fn provenance() -> String {
    let lines = [
        ("machine", format!("{}, {} cores, {} memory", processor(), cores(), memory())),
        ("system", kernel()),
        ("load", format!("{} (one, five, fifteen minutes before the end of the run)", load())),
        ("commit", commit()),
        ("command", command()),
    ];
    lines.iter().map(|(what, value)| format!("- {what}: {value}\n")).collect()
}

/// The command line with bare names: where programs were built says nothing to a reader.
fn command() -> String {
    let bare = |word: String| word.rsplit('/').next().unwrap_or_default().to_owned();
    std::env::args().map(bare).collect::<Vec<_>>().join(" ")
}

fn processor() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn memory() -> String {
    let total = field("/proc/meminfo", "MemTotal");
    let kib = total.and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{} GiB", kib >> 20))
}

/// The load averages of the system.
#[must_use]
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn kernel() -> String {
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    format!("Linux {}, huge pages {}", read("/proc/sys/kernel/osrelease").trim(), huge.trim())
}

fn commit() -> String {
    let head = output("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    match output("git", &["status", "--porcelain", "--untracked-files=no"]) {
        Some(changed) if !changed.is_empty() => format!("{head} and uncommitted changes"),
        _ => head,
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&sorted, 100), Duration::from_millis(200));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
