//! Explores the checkpoint protocol within bounds that the command line gives, and prints what it found.
//!
//! ```text
//! cargo run --release -p staunch-checkpoint --example model_check -- --crashes 2 --zombies 1
//! ```
//!
//! `--help` names all bounds. The model itself is in `tests/stateright`.

#[path = "../tests/stateright/bounds.rs"]
mod bounds;
#[path = "../tests/stateright/exploration.rs"]
mod exploration;
#[path = "../tests/stateright/model.rs"]
mod model;
#[path = "../tests/stateright/parts.rs"]
mod parts;
#[path = "../tests/stateright/process/mod.rs"]
mod process;
#[path = "../tests/stateright/settle.rs"]
mod settle;
#[path = "../tests/stateright/world.rs"]
mod world;

use bounds::{Bounds, Mistake};
use exploration::{Search, explore};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Explores the checkpoint protocol, exhaustively within bounds.

The job:      --records N --sinks N --instances N --state 0|1 --retained N --claims N
The trouble:  --crashes N --zombies N --timeouts N --losses N --repeats N --overtakes N --failures N
              --unknown N --savepoints N --stops N --forgets N
A mistake:    --mistake NAME, to see it found; `--mistake list` lists them
The search:   --threads N --breadth-first 0|1 --minutes N
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<bool, String> {
    let mut bounds = Bounds::SMALL;
    let mut mistake = Mistake::None;
    let mut search = Search::all(2);
    while let Some(name) = args.next() {
        let value = args.next().ok_or(HELP)?;
        if name == "--mistake" {
            let known = Mistake::ALL.iter().find(|(known, _)| *known == value);
            let names: Vec<&str> = Mistake::ALL.iter().map(|(name, _)| *name).collect();
            mistake = known.ok_or_else(|| names.join("\n"))?.1;
            continue;
        }
        let number: u8 = value.parse().map_err(|e| format!("{name} {value}: {e}\n\n{HELP}"))?;
        match name.as_str() {
            "--threads" => search.threads = usize::from(number.max(1)),
            "--breadth-first" => search.breadth_first = number > 0,
            "--minutes" => search.limit = Some(Duration::from_secs(60 * u64::from(number))),
            other => *bound(&mut bounds, other).ok_or_else(|| format!("{other}?\n\n{HELP}"))? = number,
        }
    }
    let found = explore(bounds, mistake, search);
    println!(
        "{} states, {} of them different, depth {}; recovered from {} worlds; {:.1} s; {}",
        found.states,
        found.unique,
        found.depth,
        found.recovered,
        found.took.as_secs_f64(),
        if found.complete { "complete" } else { "not complete" }
    );
    for (name, way) in &found.broken {
        println!("BROKEN after {} steps: {name}", way.len());
        way.iter().for_each(|happening| println!("    {happening:?}"));
    }
    found.unmet.iter().for_each(|name| println!("not met: {name}"));
    Ok(found.broken.is_empty())
}

fn bound<'a>(bounds: &'a mut Bounds, name: &str) -> Option<&'a mut u8> {
    let faults = &mut bounds.faults;
    Some(match name {
        "--records" => &mut bounds.records,
        "--sinks" => &mut bounds.sinks,
        "--instances" => &mut bounds.instances,
        "--state" => &mut bounds.states,
        "--retained" => &mut bounds.retained,
        "--claims" => &mut bounds.claims,
        "--crashes" => &mut faults.crashes,
        "--zombies" => &mut faults.zombies,
        "--timeouts" => &mut faults.timeouts,
        "--losses" => &mut faults.losses,
        "--repeats" => &mut faults.repeats,
        "--overtakes" => &mut faults.overtakes,
        "--failures" => &mut faults.failures,
        "--unknown" => &mut faults.unknown,
        "--savepoints" => &mut faults.savepoints,
        "--stops" => &mut faults.stops,
        "--forgets" => &mut faults.forgets,
        _ => return None,
    })
}
