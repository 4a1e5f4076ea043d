//! Where a result comes from: machine, load, commit, command.

use std::fs;
use std::process::Command;

/// The head of a result file: machine, load, commit and command, a line each.
#[must_use]
pub fn describe() -> String {
    let lines = [
        ("machine", format!("{}, {} cores, {} memory", processor(), cores(), memory())),
        ("system", kernel()),
        ("load", format!("{} (one, five, fifteen minutes before the end of the run)", load())),
        ("commit", commit()),
        ("command", command()),
    ];
    lines.iter().map(|(what, value)| format!("- {what}: {value}\n")).collect()
}

/// Today in UTC, like `2026-07-31`.
#[must_use]
pub fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// The load averages of the system.
#[must_use]
pub fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The command line with the program's bare name: where it was built says nothing to a reader.
fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words.join(" ")
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
