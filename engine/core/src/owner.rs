//! Whose a target is: the rules for the mark that a target keeps of the start that took it over last.
//!
//! A target that can keep such a mark keeps it where its output is, writes it when a start takes it over, and looks at it in
//! the transaction of each commit. What the mark means is decided here, once for all of them. Knows nothing of how it is
//! kept.

use crate::crash;
use crate::error::{Error, Result};
use crate::sink::SinkContext;
use crate::staged::Token;
use staunch_checkpoint::Generation;

/// Who writes, or wants to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Name of the job.
    pub job: String,
    /// Name of the sink.
    pub sink: String,
    /// Identity of the job's life.
    pub lineage: String,
    /// The start.
    pub generation: Generation,
}

/// What a target remembers of the start that took it over last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Identity of the job's life.
    pub lineage: String,
    /// The start.
    pub generation: Generation,
}

/// How a target speaks of itself in errors.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// What and where it is: `table "totals" in out.db`.
    pub place: &'a str,
    /// What to do so that another run can begin there: "empty the table and run ...".
    pub start_over: &'a str,
}

impl From<&SinkContext> for Owner {
    fn from(context: &SinkContext) -> Self {
        let SinkContext { job, sink, lineage, generation, .. } = context.clone();
        Self { job, sink, lineage, generation }
    }
}

impl From<&Token> for Owner {
    fn from(token: &Token) -> Self {
        let Token { job, sink, lineage, generation, .. } = token.clone();
        Self { job, sink, lineage, generation }
    }
}

impl Owner {
    /// Whether a start may write to a target with this mark at all. `needed` is [`SinkContext::taken_over_by`]. Whether a
    /// newer start has it already is not asked: see [`Owner::takes_over`].
    ///
    /// # Errors
    /// It holds output of another run, or is not the target that earlier starts wrote to, or an older copy of it.
    pub fn may_write(
        &self,
        found: Option<&Mark>,
        needed: Option<Generation>,
        words: Words<'_>,
    ) -> Result<()> {
        match (found, needed) {
            (Some(mark), _) if mark.lineage != self.lineage => Err(self.another_run(&mark.lineage, words)),
            (Some(mark), Some(needed)) if mark.generation < needed => {
                let last = mark.generation;
                let why = format!(
                    "no start after {last} has written there, and start {needed} of the job has written"
                );
                Err(not_the_same(words.place, &self.sink, &why))
            }
            (None, Some(needed)) => {
                let why =
                    format!("it has no mark of this sink, to which start {needed} of the job has written");
                Err(not_the_same(words.place, &self.sink, &why))
            }
            _ => Ok(()),
        }
    }

    /// Whether a start may take over a target with this mark, and write its own there.
    ///
    /// # Errors
    /// As [`Owner::may_write`], or a newer start has taken it over.
    pub fn takes_over(
        &self,
        found: Option<&Mark>,
        needed: Option<Generation>,
        words: Words<'_>,
    ) -> Result<()> {
        match found {
            Some(mark) if mark.lineage == self.lineage && mark.generation > self.generation => {
                Err(self.fenced(mark.generation, words))
            }
            found => self.may_write(found, needed, words),
        }
    }

    /// Whether a target with this mark is still the one that this start took over.
    ///
    /// # Errors
    /// It is another start's, or another run's, or went back to before this start.
    pub fn still_has(&self, found: Option<&Mark>, words: Words<'_>) -> Result<()> {
        match found {
            Some(mark) if mark.lineage != self.lineage => Err(self.another_run(&mark.lineage, words)),
            Some(mark) if mark.generation > self.generation && !crash::bug("fencing_skipped") => {
                Err(self.fenced(mark.generation, words))
            }
            Some(mark) if mark.generation < self.generation => {
                let (last, own) = (mark.generation, self.generation);
                let why = format!(
                    "it was taken over by start {last} last, and this is start {own}, which had taken it over"
                );
                Err(not_the_same(words.place, &self.sink, &why))
            }
            Some(_) => Ok(()),
            None => {
                let why = "the mark that this start left there is gone; was it replaced?";
                Err(not_the_same(words.place, &self.sink, why))
            }
        }
    }

    /// What to say of output of another life of the job.
    #[must_use]
    pub fn another_run(&self, other: &str, words: Words<'_>) -> Error {
        let (Self { job, sink, lineage, .. }, Words { place, start_over }) = (self, words);
        Error::job(format!(
            "{place} holds output of another run of job `{job}`, sink `{sink}` (run {other}; this is run {lineage}). Write to \
             another place, or continue that run from its checkpoints, or start over: {start_over}"
        ))
    }

    fn fenced(&self, newer: Generation, words: Words<'_>) -> Error {
        Error::job(format!(
            "{}: sink `{}` was taken over by start {newer} of the job; this is start {}",
            words.place, self.sink, self.generation
        ))
    }
}

/// What to say of a target that is not the one that earlier starts wrote to.
#[must_use]
pub fn not_the_same(place: &str, sink: &str, why: &str) -> Error {
    Error::job(format!(
        "{place} is not the database that sink `{sink}` wrote to before, or an older copy of it: {why}. Rows that were \
         committed would be missing. Put that database back and run the job again; or start over with --from none and \
         another database; or, to go on with this one from here, give the sink another name"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words<'_> = Words { place: "table `t`", start_over: "empty it" };

    fn owner(generation: u64) -> Owner {
        let (job, sink, lineage) = ("job".into(), "out".into(), "life-1".into());
        Owner { job, sink, lineage, generation: Generation(generation) }
    }

    fn mark(lineage: &str, generation: u64) -> Mark {
        Mark { lineage: lineage.into(), generation: Generation(generation) }
    }

    #[test]
    fn a_target_is_taken_over_unless_it_is_anothers_or_older_than_what_is_known_of_it() {
        let taken = |found: Option<Mark>, needed: Option<u64>| {
            let taken = owner(5).takes_over(found.as_ref(), needed.map(Generation), WORDS);
            taken.map_err(|e| e.to_string())
        };
        for (found, needed) in [
            (None, None),
            (Some(mark("life-1", 1)), None),
            (Some(mark("life-1", 4)), Some(4)),
            (Some(mark("life-1", 5)), Some(4)),
        ] {
            taken(found, needed).unwrap();
        }
        for (found, needed, says) in [
            (Some(mark("life-2", 1)), None, "another run of job `job`"),
            (Some(mark("life-2", 9)), Some(4), "start over: empty it"),
            (Some(mark("life-1", 6)), Some(4), "was taken over by start 6"),
            (Some(mark("life-1", 3)), Some(4), "no start after 3"),
            (None, Some(4), "it has no mark of this sink"),
        ] {
            let why = taken(found, needed).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_check_does_not_mind_a_newer_start_and_a_commit_does() {
        owner(5).may_write(Some(&mark("life-1", 6)), None, WORDS).unwrap();
        let has = |found: Option<&Mark>| owner(5).still_has(found, WORDS).map_err(|e| e.to_string());
        has(Some(&mark("life-1", 5))).unwrap();
        for (found, says) in [
            (Some(mark("life-1", 6)), "was taken over by start 6"),
            (Some(mark("life-1", 4)), "was taken over by start 4 last, and this is start 5"),
            (Some(mark("life-2", 5)), "another run"),
            (None, "is gone"),
        ] {
            let why = has(found.as_ref()).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
