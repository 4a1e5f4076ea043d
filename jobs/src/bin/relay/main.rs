//! Moves records from any source to any sink, exactly once, without a program of one's own.
//!
//! ```text
//! relay --from 'kafka://broker:9092/orders?group=relay' --to 'postgres://me:${PW}@db/shop?table=orders&key=id' \
//!     --dead-letters file:///var/spool/orders-refused
//! ```
//!
//! Promises that a record arrives once or is a dead letter, that numbers stay what they are, and that no password is
//! shown. Reading order: `connectors` (the table of all of them, from which the help comes), `record` (what moves),
//! `address`, `json`, then one file a connector.

mod address;
mod connectors;
mod json;
mod record;

use address::Address;
use connectors::Options;
use record::{Beside, Content, Prepare, letter_json};
use staunch::prelude::*;

#[derive(Clone, clap::Args)]
#[command(after_help = connectors::help())]
struct Args {
    /// Where records come from: an address, see Connectors below. `${NAME}` in an address stands for what the
    /// environment variable NAME holds.
    #[arg(long, value_name = "URL")]
    from: String,
    /// Where they go.
    #[arg(long, value_name = "URL")]
    to: String,
    /// Where records go that cannot be read, or that the sink would not take, with the reason; without it the first of
    /// them stops the job.
    #[arg(long, value_name = "URL")]
    dead_letters: Option<String>,
    /// Read at most so many records a second on each worker.
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
}

fn main() -> ExitCode {
    staunch::main(relay)
}

fn relay(job: &Job, args: &Args) -> Result<()> {
    let read = |text: &str| Address::read(text, |name| std::env::var(name).ok());
    let (from, to) = (read(&args.from)?, read(&args.to)?);
    let source = connectors::source(&from)?;
    let sink = connectors::sink(&to)?;
    let needs = (sink.needs)(&to)?;
    let options = Options { needs, rate: args.rate, dead_letters: args.dead_letters.is_some() };
    let (records, letters) = (source)(job, &from, &options)?;
    (sink.add)(records, "to", &to)?;
    if let (Some(letters), Some(text)) = (letters, &args.dead_letters) {
        let address = read(text)?;
        let sink = connectors::sink(&address)?;
        let prepare = Prepare::new(Content::Json, &(sink.needs)(&address)?)?;
        let shown = from.to_string();
        let letters = letters.map(move |letter| {
            let json = letter_json(&shown, &letter);
            let made = prepare.record(json.as_bytes(), Beside::default());
            made.unwrap_or_else(|why| panic!("a dead letter does not fit its sink ({why}): {json}"))
        });
        (sink.add)(letters, "dead_letters", &address)?;
    }
    Ok(())
}
