//! The command line that every job has.

use crate::progress::Progress;
use crate::{http, output, signals, threads};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};
use staunch_core::error::Kind;
use staunch_core::{
    Controls, Error, Guarantee, Job, Metrics, Outcome, Result, Run, RunConfig, StartFrom, Summary,
};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code when the job, its arguments or its data are wrong: running it again changes nothing.
pub const EXIT_JOB: u8 = 2;
/// Exit code when the world outside failed: run it again, it continues.
pub const EXIT_EXTERNAL: u8 = 1;
/// Exit code for a bug of the engine.
pub const EXIT_INTERNAL: u8 = 3;

/// Where to begin: its id, and what it is called where `--from` is an argument of the job's own.
const FROM: &str = "from-checkpoint";

#[derive(Parser)]
struct RunArgs<A: Args> {
    #[command(flatten)]
    job: A,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Parser)]
struct PlanArgs<A: Args> {
    #[command(flatten)]
    job: A,
    /// As JSON.
    #[arg(long, conflicts_with = "dot")]
    json: bool,
    /// For Graphviz.
    #[arg(long)]
    dot: bool,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Engine")]
struct EngineArgs {
    /// Worker threads.
    #[arg(long, default_value_t = 1, value_name = "N")]
    workers: usize,
    /// Directory of the checkpoints [default: checkpoints/JOB]
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Time between checkpoints, or `off` for one at the end only.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = interval)]
    checkpoint_every: Interval,
    /// Where to begin: `latest`, `none`, or the id of a retained checkpoint.
    #[arg(id = FROM, long = "from", default_value = "latest", value_name = "ID|latest|none", value_parser = start_from)]
    from: StartFrom,
    /// Serve Prometheus metrics at http://ADDR/metrics.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Memory for keyed state; the rest goes to disk.
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = size)]
    state_memory: usize,
    /// Most workers that state can ever be spread over; fixed when the job first starts.
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_parallelism: u16,
    /// Checkpoints to keep; the newest one stays in any case.
    #[arg(long, default_value_t = 3, value_name = "N")]
    retain: usize,
    /// Abandon a checkpoint that takes longer.
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = limit)]
    checkpoint_timeout: Duration,
    /// Stop the job if a source takes longer to list its splits at the start, or to open one.
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = limit)]
    open_timeout: Duration,
    /// Stop the job if a commit takes longer, with all its repetitions.
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = limit)]
    commit_timeout: Duration,
    /// What to promise. At least once, steps do not wait for each other at a checkpoint, and after a crash
    /// effects of some records show twice.
    #[arg(long, default_value = "exactly-once", value_name = "GUARANTEE")]
    guarantee: GuaranteeArg,
    /// Go on with a step whose parameters are others than in the checkpoint, where that has a meaning; may be given
    /// several times.
    #[arg(long, value_name = "STEP")]
    accept_change: Vec<String>,
    /// Name of the job, kept in its checkpoints [default: the program's name]
    #[arg(long, value_name = "NAME")]
    job_name: Option<String>,
    /// How to write the log to standard error; RUST_LOG chooses what.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum GuaranteeArg {
    ExactlyOnce,
    AtLeastOnce,
}

impl From<GuaranteeArg> for Guarantee {
    fn from(arg: GuaranteeArg) -> Self {
        match arg {
            GuaranteeArg::ExactlyOnce => Guarantee::ExactlyOnce,
            GuaranteeArg::AtLeastOnce => Guarantee::AtLeastOnce,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A checkpoint interval; `None` is off.
#[derive(Clone, Copy)]
struct Interval(Option<Duration>);

fn interval(text: &str) -> Result<Interval, String> {
    match text {
        "off" => Ok(Interval(None)),
        text => match crate::duration(text)? {
            Duration::ZERO => Err("0 is not an interval; use off for no checkpoints while running".into()),
            every => Ok(Interval(Some(every))),
        },
    }
}

fn limit(text: &str) -> Result<Duration, String> {
    match crate::duration(text)? {
        Duration::ZERO => Err("nothing can be done in no time".into()),
        limit => Ok(limit),
    }
}

fn start_from(text: &str) -> Result<StartFrom, String> {
    match text {
        "latest" => Ok(StartFrom::Latest),
        "none" => Ok(StartFrom::Nothing),
        id => match id.parse() {
            Ok(id) => Ok(StartFrom::Checkpoint(staunch_core::CheckpointId(id))),
            Err(_) => Err("write latest, none, or the number of a checkpoint".into()),
        },
    }
}

fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: usize = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        unit => return Err(format!("{unit:?} is no unit; use KiB, MiB or GiB")),
    };
    let number: usize = digits.trim().parse().map_err(|_| "write it like 512MiB or 4GiB".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "that is too much".to_owned())
}

/// The `main` of a job: parses the command line, then runs the job (`run`, the default) or prints its
/// graph (`plan [--json|--dot]`).
///
/// Exit codes: 0 complete or stopped on request, 1 the world outside failed (run it again, it
/// continues), 2 the job, its arguments or its data are wrong, 3 a bug in the engine, 130 a second signal to stop
/// (run it again, it continues).
///
/// Signals: SIGTERM and SIGINT take a last checkpoint, commit and exit with 0, and the next run
/// continues; SIGUSR2 drains (windows fire, the job is complete); SIGUSR1 takes a savepoint.
pub fn main<A, B>(build: B) -> ExitCode
where
    A: Args + Clone + Send + Sync + 'static,
    B: for<'s> Fn(&Job<'s>, &A) -> Result<()> + Send + Sync + 'static,
{
    let mut args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let command = args.get(1).and_then(|a| a.to_str()).unwrap_or_default().to_owned();
    if command == "plan" || command == "run" {
        args.remove(1);
    }
    let result = output::caught(|| {
        if command == "plan" {
            print_plan(build, &PlanArgs::parse_from(args))
        } else {
            run(build, run_args(args))
        }
    });
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            output::say(&format!("error: {error}"));
            match error.kind() {
                Kind::Job => EXIT_JOB,
                Kind::External => EXIT_EXTERNAL,
                Kind::Internal => EXIT_INTERNAL,
            }
        }
    };
    threads::leave(code)
}

/// Parses the command line. An argument of the job's own goes before the engine's of that name.
fn run_args<A: Args>(args: Vec<std::ffi::OsString>) -> RunArgs<A> {
    let own = A::augment_args(Command::new("job"));
    let mut command = RunArgs::<A>::command();
    if own.get_arguments().any(|argument| argument.get_long() == Some("from")) {
        command = command.mut_arg(FROM, |argument| argument.long(FROM));
    }
    let matches = command.clone().get_matches_from(args);
    RunArgs::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

fn print_plan<A, B>(build: B, args: &PlanArgs<A>) -> Result<()>
where
    A: Args,
    B: for<'s> Fn(&Job<'s>, &A) -> Result<()>,
{
    let plan = staunch_core::plan(|job: &Job<'_>| build(job, &args.job))?;
    let text = match (args.json, args.dot) {
        (true, _) => plan.to_json(),
        (_, true) => plan.to_dot(),
        _ => plan.to_text(),
    };
    output::print(text.trim_end())
}

fn run<A, B>(build: B, args: RunArgs<A>) -> Result<()>
where
    A: Args + Send + Sync + 'static,
    B: for<'s> Fn(&Job<'s>, &A) -> Result<()> + Send + Sync + 'static,
{
    let RunArgs { job: job_args, engine } = args;
    start_log(engine.log);
    // First of all: a stop is to be heard whatever the start waits for.
    let controls = Controls::default();
    signals::listen(controls.clone())?;
    let job = match &engine.job_name {
        Some(name) => name.clone(),
        None => program_name()?,
    };
    let checkpoints = engine.checkpoints.clone().unwrap_or_else(|| PathBuf::from("checkpoints").join(&job));
    let config = RunConfig {
        workers: engine.workers,
        checkpoint_every: engine.checkpoint_every.0,
        checkpoint_timeout: engine.checkpoint_timeout,
        open_timeout: engine.open_timeout,
        commit_timeout: engine.commit_timeout,
        from: engine.from,
        state_bytes: engine.state_memory,
        groups: engine.max_parallelism,
        retained: engine.retain,
        guarantee: engine.guarantee.into(),
        accept_changes: engine.accept_change.into_iter().collect(),
        ..RunConfig::new(job.clone(), checkpoints)
    };
    let metrics = Metrics::new(&job);
    if let Some(address) = engine.metrics {
        http::serve(address, metrics.clone())?;
    }
    let on_terminal = engine.log == LogFormat::Text && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let progress = on_terminal.then(|| Progress::show(metrics.clone()));
    let run = Run::from(config).controls(&controls).metrics(&metrics);
    let ended = run.run(move |job: &Job<'_>| build(job, &job_args));
    drop(progress);
    say_what_was_done(&ended?, on_terminal);
    Ok(())
}

/// The last words of a run that ended well: a block for whoever sits before it, a line for whoever reads the log.
fn say_what_was_done(summary: &Summary, on_terminal: bool) {
    if on_terminal {
        return output::say(&summary.to_string());
    }
    match summary.outcome {
        Outcome::Finished => tracing::info!("complete"),
        Outcome::Stopped => tracing::info!("stopped; run it again to continue"),
        Outcome::AlreadyFinished => {}
    }
    let published: Vec<String> =
        summary.published.iter().map(|(sink, records)| format!("{sink}={records}")).collect();
    tracing::info!(
        records_read = summary.records_read,
        published = published.join(" "),
        late = summary.late,
        dead_letters = summary.dead_letters,
        checkpoints = summary.checkpoints,
        checkpoints_failed = summary.checkpoints_failed,
        restarts = summary.restarts,
        seconds = summary.took.as_secs_f64(),
        "what the run did"
    );
}

fn program_name() -> Result<String> {
    let path = std::env::current_exe().map_err(|e| {
        Error::external("the program's name is unknown; give one with --job-name").caused_by(e)
    })?;
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("job");
    Ok(stem.to_owned())
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::Log::default)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Refused only if the program has set up a log of its own, which is then the one to use.
    let _ = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    output::log_panics();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("4 GiB"), Ok(4 << 30));
        assert_eq!(size("7"), Ok(7));
        assert!(size("7 bananas").is_err());
        assert!(size("MiB").is_err());
    }

    #[test]
    fn an_interval_is_a_duration_or_off() {
        assert_eq!(interval("100ms").unwrap().0, Some(Duration::from_millis(100)));
        assert_eq!(interval("off").unwrap().0, None);
        assert!(interval("0s").is_err());
        assert!(interval("soon").is_err());
    }
}
