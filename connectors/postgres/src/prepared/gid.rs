//! What prepared transactions are called.
//!
//! A name says whose the transaction is: of which job, of which sink, run and table, of which start and instance. So a start
//! finds what earlier ones left behind, and nobody else's.

use staunch_core::Generation;
use staunch_core::sink::SinkContext;

/// Bytes of a name that the server takes.
const MOST_BYTES: usize = 199;

/// What the names of all transactions of a job begin with.
pub(crate) fn of_job(job: &str) -> String {
    format!("staunch_{:016x}_", hash(&[job]))
}

/// What the names of all transactions of a sink begin with, in one run of the job and into one table.
pub(crate) fn of_sink(context: &SinkContext, table: &str) -> String {
    let SinkContext { job, sink, lineage, .. } = context;
    format!("{}{:016x}_", of_job(job), hash(&[sink, lineage, table]))
}

/// The name of the `count`th transaction of an instance in a start. What stands behind is for people.
pub(crate) fn name(context: &SinkContext, table: &str, count: u64) -> String {
    let SinkContext { job, sink, generation, instance, .. } = context;
    let mut name = format!("{}{generation}_{instance}_{count}_{job}/{sink}", of_sink(context, table));
    let fits = (0..=MOST_BYTES.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
    name.truncate(fits.unwrap_or(0));
    name
}

/// The start that prepared a transaction of this name, if it is of this sink.
pub(crate) fn generation(name: &str, of_sink: &str) -> Option<Generation> {
    name.strip_prefix(of_sink)?.split('_').next()?.parse().ok().map(Generation)
}

/// A text as a literal of SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// FNV-1a: the same for every build of the program.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(job: &str, sink: &str, generation: u64) -> SinkContext {
        let mut context = SinkContext::alone(sink);
        context.job = job.into();
        context.generation = Generation(generation);
        context
    }

    #[test]
    fn a_name_says_whose_it_is_and_fits() {
        let long = "ü".repeat(150);
        for (job, sink) in [("shop", "totals"), (long.as_str(), "totals"), ("it's", "a_b_c")] {
            let context = context(job, sink, 7);
            let name = name(&context, "public.t", 12);
            assert!(name.len() <= MOST_BYTES && name.starts_with(&of_job(job)), "{name}");
            assert_eq!(generation(&name, &of_sink(&context, "public.t")), Some(Generation(7)));
        }
    }

    #[test]
    fn names_of_another_job_sink_run_or_table_are_not_ours() {
        let ours = of_sink(&context("shop", "totals", 1), "t");
        let mut another_run = context("shop", "totals", 1);
        another_run.lineage = "another".into();
        for (context, table) in [
            (context("shop", "total", 1), "t"),
            (context("shops", "totals", 1), "t"),
            (context("shop", "totals", 1), "t2"),
            (another_run, "t"),
        ] {
            assert_eq!(generation(&name(&context, table, 0), &ours), None);
        }
        assert_eq!(generation("somebody else's", &ours), None);
    }
}
