//! Runs the whole crash matrix and prints its table: `crash_matrix VICTIM`.

use staunch_testing::matrix::{Case, Fault, cases, run};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let Some(victim) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crash_matrix VICTIM (the binary `victim`, built with the feature crash-points)");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let all = cases(true);
    let mut table: BTreeMap<&str, BTreeMap<String, (u32, u32)>> = BTreeMap::new();
    let mut failures = Vec::new();
    for (number, case) in all.iter().enumerate() {
        eprint!(
            "\r{}/{} {} {:?} hit {} workers {}        ",
            number + 1,
            all.len(),
            case.point,
            case.fault,
            case.nth,
            case.workers
        );
        let outcome = one(case, &victim);
        let cell = table.entry(case.point).or_default().entry(format!("{:?}", case.fault)).or_default();
        cell.1 += 1;
        match outcome {
            Ok(()) => cell.0 += 1,
            // Some points are passed less often than the case asks for; they are counted apart.
            Err(why) if why.contains("never hit") && case.nth > 3 => cell.1 -= 1,
            Err(why) => failures.push(format!("{case:?}: {why}")),
        }
    }
    eprintln!();
    println!("| crash point | kill | zombie | I/O error |\n|---|---|---|---|");
    for (point, cells) in &table {
        let cell = |fault: Fault| match cells.get(&format!("{fault:?}")) {
            Some((passed, of)) => format!("{passed}/{of}"),
            None => "-".to_owned(),
        };
        println!("| {point} | {} | {} | {} |", cell(Fault::Kill), cell(Fault::Zombie), cell(Fault::Error));
    }
    println!("\n{} cases, {} failures, {:?}", all.len(), failures.len(), began.elapsed());
    for failure in &failures {
        println!("FAILED {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(case: &Case, victim: &std::path::Path) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    run(case, victim, dir.path())
}
