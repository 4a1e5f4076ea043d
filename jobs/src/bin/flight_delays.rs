//! Delays at New York's airports: for each origin and each hour of scheduled departure, how many
//! flights were scheduled, cancelled and late, and by how much.
//!
//! The input is in the order in which flights left, up to 23 hours away from the order in which they
//! were scheduled: a case for event time. Each window is published once, complete, whatever happens to
//! the process meanwhile.

use serde::{Deserialize, Serialize};
use staunch::{file, prelude::*};

#[derive(Clone, clap::Args)]
struct Args {
    /// Flights: a CSV file, or a directory of them.
    #[arg(long, value_name = "FILE|DIR")]
    input: PathBuf,
    /// Directory for the results, as JSON Lines.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// How far out of order the input may be.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = staunch::duration)]
    lateness: Duration,
    /// Length of a window.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = staunch::duration)]
    window: Duration,
    /// Read at most so many flights a second on each worker.
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
}

/// A departure, as far as this job cares.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    origin: String,
    /// Scheduled hour, UTC.
    time_hour: jiff::Timestamp,
    /// Scheduled minute of the hour.
    minute: i64,
    /// Minutes; `NA` if the flight was cancelled.
    #[serde(with = "number_or_na")]
    dep_delay: Option<i64>,
}

impl Flight {
    fn scheduled(&self) -> Timestamp {
        Timestamp::from_millis(self.time_hour.as_millisecond() + self.minute * 60_000)
    }
}

/// What one hour at one airport came to.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Delays {
    scheduled: u64,
    cancelled: u64,
    delayed: u64,
    delay_minutes: i64,
    max_delay_minutes: Option<i64>,
}

impl Delays {
    fn add(&mut self, flight: Flight) {
        self.scheduled += 1;
        let Some(delay) = flight.dep_delay else {
            self.cancelled += 1;
            return;
        };
        self.delayed += u64::from(delay > 15);
        self.delay_minutes += delay;
        self.max_delay_minutes = self.max_delay_minutes.max(Some(delay));
    }
}

/// One line of the result.
#[derive(Serialize)]
struct Row {
    origin: String,
    hour: String,
    #[serde(flatten)]
    delays: Delays,
}

impl From<WindowResult<String, Delays>> for Row {
    fn from(result: WindowResult<String, Delays>) -> Self {
        Self { origin: result.key, hour: result.window.start.to_string(), delays: result.value }
    }
}

fn main() -> ExitCode {
    staunch::main(flight_delays)
}

fn flight_delays(job: &Job, args: &Args) -> Result<()> {
    let flights =
        file::rows::<Flight>(&args.input).event_time(Flight::scheduled, args.lateness).limit_rate(args.rate);

    job.source("flights", flights)
        .key_by(|flight| flight.origin.clone())
        .window(Tumbling::of(args.window))
        .fold("delays", Delays::add)
        .map(Row::from)
        .sink("output", file::json_lines(&args.output));
    Ok(())
}

/// Numbers as in the data: `NA` is none. Both ways, because records also travel between workers.
mod number_or_na {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(field: D) -> Result<Option<i64>, D::Error> {
        let text = String::deserialize(field)?;
        if text == "NA" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| D::Error::custom(format!("{text:?} is neither a number nor NA")))
    }

    pub fn serialize<S: Serializer>(number: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => to.collect_str(number),
            None => to.serialize_str("NA"),
        }
    }
}
