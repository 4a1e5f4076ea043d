//! Rules that every connector must keep, as tests that a connector's own tests can call.
//!
//! [`sink`] puts a transactional sink through the crash windows of a checkpoint; [`source`] reads a source
//! from every place, in every order. Each rule has a name and a sentence. What a rule found comes back as a
//! value ([`Outcome`]), so that the suites themselves are tested: a connector that is wrong on purpose must
//! break the rule that is about its mistake, and no other one may be needed to see it.
//!
//! The suites know the contracts in [`staunch::core::source`] and [`staunch::core::sink`], and nothing of
//! any connector. Whoever calls them says how to make the connector and how to look at its other end:
//! [`sink::Target`], [`source::Input`]. `docs/testing-a-connector.md` is the tutorial.

pub mod sink;
pub mod source;
mod watch;

pub(crate) use watch::Watch;

use staunch::core::Error;
use staunch::core::sink::CommitError;
use std::fmt;

/// One rule of a suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name, as a test.
    pub name: &'static str,
    /// The crash window that it is about, `a` to `j` (docs/GUARANTEES.md); `None` if it is about none.
    pub window: Option<char>,
    /// What must hold, in one sentence.
    pub says: &'static str,
}

/// What came of one rule.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The connector keeps it.
    Held,
    /// It could not be tried, and this is why. Never to be taken for kept.
    Skipped(String),
    /// The connector breaks it.
    Broken(Violation),
}

/// A rule that is broken: which one, what was to be, what was.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// What was to be seen.
    pub expected: String,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}` is broken: {}", self.rule.name, self.rule.says)?;
        if let Some(window) = self.rule.window {
            write!(f, " (crash window {window})")?;
        }
        write!(f, "\n  expected: {}\n  seen:     {}", self.expected, self.seen)
    }
}

// A test that returns a violation shows its `Debug` form; that is for people too.
impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

/// What came of all rules of a suite.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each rule once, in the order of the suite.
    pub outcomes: Vec<(Rule, Outcome)>,
}

impl Report {
    /// The rules that are broken.
    #[must_use]
    pub fn violations(&self) -> Vec<&Violation> {
        let broken = self.outcomes.iter().map(|(_, outcome)| match outcome {
            Outcome::Broken(violation) => Some(violation),
            Outcome::Held | Outcome::Skipped(_) => None,
        });
        broken.flatten().collect()
    }

    /// The rules that could not be tried, and why.
    #[must_use]
    pub fn skipped(&self) -> Vec<(Rule, &str)> {
        let skipped = self.outcomes.iter().map(|(rule, outcome)| match outcome {
            Outcome::Skipped(why) => Some((*rule, why.as_str())),
            Outcome::Held | Outcome::Broken(_) => None,
        });
        skipped.flatten().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, outcome) in &self.outcomes {
            match outcome {
                Outcome::Held => writeln!(f, "held     {}", rule.name)?,
                Outcome::Skipped(why) => writeln!(f, "skipped  {}: {why}", rule.name)?,
                Outcome::Broken(violation) => writeln!(f, "BROKEN   {violation}")?,
            }
        }
        Ok(())
    }
}

/// Something that a suite asks for and that not everybody can do.
#[derive(Clone, Debug)]
pub enum Can<T = ()> {
    /// It was done, with this result.
    Done(T),
    /// It cannot be done, for this reason. Rules that need it are skipped, and say so.
    Not(&'static str),
}

impl<T> Can<T> {
    fn or_skip(self) -> Result<T, Stop> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Not(why) => Err(Stop::Skipped(why.to_owned())),
        }
    }
}

/// Why a rule was left before its end.
#[derive(Clone, Debug)]
pub enum Stop {
    /// It cannot be tried.
    Skipped(String),
    /// It is broken.
    Broken {
        /// What was to be seen.
        expected: String,
        /// What was seen.
        seen: String,
    },
}

/// What a rule returns.
pub type Verdict = Result<(), Stop>;

impl Stop {
    pub(crate) fn broken(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Broken { expected: expected.into(), seen: seen.into() }
    }

    /// A step of the rule that must succeed did not.
    pub(crate) fn failed(step: impl fmt::Display, error: &Error) -> Self {
        Self::broken(format!("{step} succeeds"), format!("an error: {error}"))
    }

    pub(crate) fn not_committed(step: impl fmt::Display, error: &CommitError) -> Self {
        let kind = match error {
            CommitError::Retry(_) => "Retry, again and again",
            CommitError::Refused(_) => "Refused",
        };
        Self::broken(format!("{step} succeeds"), format!("{kind}: {error}"))
    }
}

/// Breaks the rule unless `holds`.
pub(crate) fn must(holds: bool, expected: impl Into<String>, seen: impl fmt::Display) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::broken(expected, seen.to_string())) }
}

/// Prints what was skipped, so that it is never taken for kept, and fails with what is broken.
pub(crate) fn as_test(rule: Rule, outcome: Outcome) -> Result<(), Violation> {
    match outcome {
        Outcome::Held => Ok(()),
        Outcome::Skipped(why) => {
            println!("DOES NOT APPLY: {}: {why}", rule.name);
            Ok(())
        }
        Outcome::Broken(violation) => Err(violation),
    }
}

/// The rule of this name. One of another name breaks itself.
pub(crate) fn rule_of(rules: &[Rule], name: &'static str) -> Rule {
    let known = rules.iter().find(|rule| rule.name == name).copied();
    known.unwrap_or(Rule { name, window: None, says: "there is no such rule in this suite" })
}

/// Makes one `#[test]` of each rule for a sink. The expression makes a new [`sink::Target`] for each.
///
/// ```
/// # mod tests {
/// staunch_testing::sink_conformance!(staunch::memory::collect::<staunch_testing::conformance::sink::Row>());
/// # }
/// ```
#[macro_export]
macro_rules! sink_conformance {
    ($target:expr) => {
        $crate::__sink_rules!([$crate::__rule_tests] $crate::conformance::sink::test, $target);
    };
}

/// Makes one `#[test]` of each rule for a source. The expression makes a new [`source::Input`] for each.
#[macro_export]
macro_rules! source_conformance {
    ($input:expr) => {
        $crate::__source_rules!([$crate::__rule_tests] $crate::conformance::source::test, $input);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __rule_tests {
    ([$test:expr, $make:expr] $($file:ident :: $name:ident $window:expr, $says:literal;)*) => {
        $(
            #[test]
            fn $name() -> ::std::result::Result<(), $crate::conformance::Violation> {
                $test(stringify!($name), || $make)
            }
        )*
    };
}

/// Makes the list of a suite's rules.
macro_rules! table {
    ([] $($file:ident :: $name:ident $window:expr, $says:literal;)*) => {
        /// All rules, in the order of the windows.
        pub const RULES: &[$crate::conformance::Rule] = &[
            $($crate::conformance::Rule { name: stringify!($name), window: $window, says: $says },)*
        ];
    };
}
pub(crate) use table;
