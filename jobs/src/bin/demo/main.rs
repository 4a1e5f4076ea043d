//! The demonstration behind `make demo`: `flight_delays` is killed half-way with SIGKILL and started again
//! on another number of workers; then what it has published is compared with a batch computation.
//!
//! Reading order: this file (the story), `life` (one run of the job, watched), `show` (what the
//! reader sees).

mod life;
mod show;

use anyhow::{Context, Result, ensure};
use jobs::batch::{self, FlightDelays};
use jobs::output::{self, Difference};
use life::{Life, Seen};
use show::{Progress, grouped, plural, say, seconds};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const INPUT: &str = "jobs/data/flights-2013-01.csv";
const FOLDER: &str = "demo";
pub(crate) const OUTPUT: &str = "demo/output";
/// Workers before the kill, and after it.
const WORKERS: [usize; 2] = [2, 3];
/// Longest that a run may take, on a slow machine.
const LONGEST: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    ensure!(
        Path::new(INPUT).exists(),
        "{INPUT} is not here; run it with `make demo` in the project's folder"
    );
    if Path::new(FOLDER).exists() {
        std::fs::remove_dir_all(FOLDER).context("cannot empty the folder demo")?;
    }
    let began = Instant::now();
    let expected = batch::flight_delays(Path::new(INPUT))?;
    introduce(&expected);

    let (seen, killed_after) = first_life(&expected)?;
    let on_disk = output::committed(Path::new(OUTPUT))?;
    say_what_is_on_disk(&seen, &on_disk)?;

    let second = second_life(&expected, &seen)?;
    let difference = compare(&expected, &on_disk)?;
    summarise(&expected, &seen, killed_after, &second, &difference);
    ensure!(
        difference.is_none(),
        "the published lines differ from the batch result: {} lost, {} doubled, {} wrong; the first: {:?}",
        difference.lost.len(),
        difference.doubled.len(),
        difference.wrong.len(),
        [&difference.lost, &difference.doubled, &difference.wrong].into_iter().flatten().next()
    );
    say!(
        "\nWhatever the moment of the kill, each result is published exactly once ({} in all).",
        seconds(began.elapsed())
    );
    say!("The published files are in {OUTPUT}; run `make demo` again, or `make test` for many more kills.");
    Ok(())
}

fn introduce(expected: &FlightDelays) {
    say!("Staunch: a streaming job is killed half-way, and its results still come out exactly once.\n");
    say!(
        "The job, flight_delays, reads the {} flights that left New York in January 2013 and",
        grouped(expected.flights)
    );
    say!("publishes one line for each airport and hour: how many flights, how many cancelled, how late.");
    say!("It is slowed down, so that there is something to see. Its code: jobs/src/bin/flight_delays.rs");
}

/// Runs the job until half of the input is read, and kills it.
fn first_life(expected: &FlightDelays) -> Result<(Seen, Duration)> {
    say!("\n[1] Start it, on {} workers\n", WORKERS[0]);
    let mut life = Life::begin(WORKERS[0])?;
    let mut progress = Progress::of(expected.flights);
    loop {
        let seen = life.look()?;
        progress.show(&seen);
        // With something unfinished on disk: the worst moment that can be chosen from outside.
        if seen.read >= expected.flights / 2
            && seen.committed > 0
            && !output::pending(Path::new(OUTPUT))?.is_empty()
        {
            life.kill()?;
            progress.last(&seen);
            return Ok((seen, life.age()));
        }
        ensure!(life.goes_on()?, "the job ended before it could be killed:\n{}", life.log());
        ensure!(life.age() < LONGEST, "the job is not half-way after {LONGEST:?}:\n{}", life.log());
    }
}

fn say_what_is_on_disk(seen: &Seen, on_disk: &BTreeMap<String, String>) -> Result<()> {
    let lines: usize = on_disk.values().map(|text| text.lines().count()).sum();
    let pending = output::pending(Path::new(OUTPUT))?.len();
    say!("\n[2] kill -9, after {} flights\n", grouped(seen.read));
    say!("    On disk in {OUTPUT} now:");
    say!(
        "      published   {} with {} lines, which no reader will ever see changed",
        plural(on_disk.len(), "file"),
        grouped(lines as u64)
    );
    say!(
        "      unfinished  {} in the hidden folder .pending: not results, whatever is in them",
        plural(pending, "file")
    );
    Ok(())
}

/// What the second run was like.
struct Second {
    restored: u64,
    /// Flights read before the kill that are read again.
    again: u64,
    first_record: Duration,
    first_commit: Duration,
}

/// Runs the same command to the end, on another number of workers.
fn second_life(expected: &FlightDelays, before: &Seen) -> Result<Second> {
    say!("\n[3] Start the same command again, on {} workers instead of {}\n", WORKERS[1], WORKERS[0]);
    let mut life = Life::begin(WORKERS[1])?;
    let mut progress = Progress::of(expected.flights);
    let (mut first_record, mut first_commit) = (None, None);
    let mut start = None;
    while life.goes_on()? {
        ensure!(life.age() < LONGEST, "the job is not complete after {LONGEST:?}:\n{}", life.log());
        let seen = life.look()?;
        if start.is_none()
            && let Some((restored, position)) = life.restored()
        {
            let again = before.read.saturating_sub(position);
            say!(
                "    It continues from checkpoint {restored}, after flight {}: the {} flights that were read",
                grouped(position),
                grouped(again)
            );
            say!("    later are read again, and count once.\n");
            start = Some((restored, again));
        }
        if seen.read_now > 0 {
            first_record.get_or_insert_with(|| life.age());
        }
        if start.is_some_and(|(restored, _)| seen.newest_committed > restored) {
            first_commit.get_or_insert_with(|| life.age());
        }
        progress.show(&seen);
    }
    ensure!(life.ended_well()?, "the job failed when it was started again:\n{}", life.log());
    progress.last(&life.at_end(expected.flights)?);
    let (restored, again) = start.context("the job did not say which checkpoint it restored")?;
    let first_record = first_record.context("the job was over before its first record was seen")?;
    let first_commit = first_commit.context("the job was over before its first commit was seen")?;
    Ok(Second { restored, again, first_record, first_commit })
}

fn compare(expected: &FlightDelays, before: &BTreeMap<String, String>) -> Result<Difference> {
    say!("\n[4] Compare with a batch computation: one loop over the file, no engine (jobs/src/batch.rs)\n");
    let now = output::committed(Path::new(OUTPUT))?;
    for (name, text) in before {
        ensure!(
            now.get(name) == Some(text),
            "{OUTPUT}/{name} was published before the kill and has changed since"
        );
    }
    let found = output::committed_lines(Path::new(OUTPUT))?;
    Ok(Difference::between(&expected.lines, &found))
}

fn summarise(
    expected: &FlightDelays,
    seen: &Seen,
    killed_after: Duration,
    second: &Second,
    difference: &Difference,
) {
    let row = |name: &str, value: String| say!("    {name:<26}{value}");
    row("flights", grouped(expected.flights));
    row("windows (airport, hour)", grouped(expected.lines.len() as u64));
    row("killed with SIGKILL", format!("after {} flights, {}", grouped(seen.read), seconds(killed_after)));
    let Second { restored, again, first_record, first_commit } = second;
    row("restored", format!("checkpoint {restored}, on {} workers instead of {}", WORKERS[1], WORKERS[0]));
    row("flights read twice", grouped(*again));
    row("restart to first record", seconds(*first_record));
    row("restart to first commit", seconds(*first_commit));
    row("lines lost", difference.lost.len().to_string());
    row("lines doubled", difference.doubled.len().to_string());
    row("lines wrong", difference.wrong.len().to_string());
}
