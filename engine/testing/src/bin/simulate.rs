//! Runs the simulator over many seeds, up to the first violation, or shows one of them move by move.

use clap::Parser;
use staunch_testing::figures;
use staunch_testing::simulation::{Report, reachable, run, stay_on_one_core};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// Simulates jobs that crash, seed by seed.
#[derive(Parser)]
struct Arguments {
    /// Shows this run, move by move.
    #[arg(long)]
    seed: Option<u64>,
    /// First of the seeds.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Threads, each with a run of its own.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Writes the figures into this file, as Markdown.
    #[arg(long)]
    result: Option<PathBuf>,
}

#[derive(Default)]
struct Totals {
    runs: u64,
    with_crashes: u64,
    with_zombies: u64,
    with_failures: u64,
    crashes: u64,
    zombies: u64,
    rescales: u64,
    drains: u64,
    clock_jumps: u64,
    turns: u64,
    unions: u64,
    spilling: u64,
    late: u64,
    lives: u64,
    moves: u64,
    rows: u64,
    hits: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.with_crashes += u64::from(report.crashes > 0);
        self.with_zombies += u64::from(report.zombies > 0);
        self.with_failures += u64::from(report.failed > 0);
        self.crashes += u64::from(report.crashes);
        self.zombies += u64::from(report.zombies);
        self.rescales += u64::from(report.rescales);
        self.drains += u64::from(report.drains);
        self.clock_jumps += u64::from(report.clock_jumps);
        self.turns += u64::from(report.turns);
        self.unions += u64::from(report.unions);
        self.spilling += u64::from(report.spilled > 0);
        self.late += report.late;
        self.lives += u64::from(report.lives);
        self.moves += report.moves;
        self.rows += report.rows;
        for (point, hits) in &report.hits {
            *self.hits.entry(point).or_default() += hits;
        }
    }
}

impl Totals {
    fn to_markdown(&self, arguments: &Arguments, seconds: f64) -> String {
        let Arguments { from, seeds, threads, .. } = arguments;
        let figures = [
            ("seeds", format!("{from} to {}", from + seeds - 1)),
            ("runs without a violation", self.runs.to_string()),
            ("of these with crashes", self.with_crashes.to_string()),
            ("of these with processes that were replaced while they lived", self.with_zombies.to_string()),
            (
                "of these with effects that failed, or whose outcome was unknown",
                self.with_failures.to_string(),
            ),
            ("processes started", self.lives.to_string()),
            ("crashes", self.crashes.to_string()),
            ("processes replaced while they lived", self.zombies.to_string()),
            ("starts on another number of workers", self.rescales.to_string()),
            ("processes asked to drain", self.drains.to_string()),
            ("processes that went back to an older checkpoint", self.turns.to_string()),
            ("jobs whose state exceeded its memory", self.spilling.to_string()),
            ("jobs of two sources, united", self.unions.to_string()),
            ("records that came too late for their windows", self.late.to_string()),
            ("jumps of a process's clock on the wall", self.clock_jumps.to_string()),
            ("moves", self.moves.to_string()),
            ("published rows, each checked when it appeared", self.rows.to_string()),
            ("runs a second", format!("{:.0} on {threads} threads", self.runs as f64 / seconds)),
        ];
        let figures: String = figures.iter().map(|(what, value)| format!("| {what} | {value} |\n")).collect();
        let hits = |point: &&str| self.hits.get(*point).copied().unwrap_or(0);
        let hits: String = reachable().iter().map(|p| format!("| `{p}` | {} |\n", hits(p))).collect();
        let of = figures::provenance();
        format!(
            "# Deterministic simulation\n\n{of}\n| what | how much |\n|:--|--:|\n{figures}\n| crash point | passed |\n|:--|--:|\n{hits}"
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return match run(seed, true) {
            Ok(report) => {
                println!("{report:#?}");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                eprintln!("{violation}");
                ExitCode::FAILURE
            }
        };
    }
    many(&arguments)
}

fn many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let (next, failed) = (AtomicU64::new(arguments.from), AtomicBool::new(false));
    let end = arguments.from + arguments.seeds;
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for thread in 0..arguments.threads {
            let (next, failed, totals) = (&next, &failed, &totals);
            scope.spawn(move || {
                stay_on_one_core(thread as usize);
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= end || failed.load(SeqCst) {
                        return;
                    }
                    match run(seed, false) {
                        Ok(report) => {
                            let mut totals = totals.lock().expect("no thread panics while it adds");
                            totals.add(&report);
                            if totals.runs % 1000 == 0 {
                                let rate = totals.runs as f64 / began.elapsed().as_secs_f64();
                                println!(
                                    "{} runs, {} crashes, {rate:.0} runs a second",
                                    totals.runs, totals.crashes
                                );
                            }
                        }
                        Err(violation) => {
                            eprintln!("{violation}");
                            failed.store(true, SeqCst);
                        }
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panics while it adds");
    let text = totals.to_markdown(arguments, began.elapsed().as_secs_f64());
    println!("{text}");
    if let Some(file) = &arguments.result
        && let Err(error) = std::fs::write(file, &text)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if failed.load(SeqCst) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
