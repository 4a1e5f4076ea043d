//! Which strikes there are: faults x operations x places x how often before, in two sorts of lives.

use super::fault::Fault;
use super::learn::Learned;
use crate::simulation::random::Random;
use std::fmt;
use std::str::FromStr;

/// Which life of the victim is struck.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Life {
    /// The first one, from nothing.
    First,
    /// One that continues after a kill, with another number of workers.
    Later,
}

/// Where and how one life is struck.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Strike {
    /// What is done.
    pub fault: Fault,
    /// At the so many-th operation of this sort.
    pub nth: u64,
    /// Its name; `*` is any.
    pub operation: String,
    /// What its path begins with.
    pub place: String,
}

/// One case of the attack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Which life is struck first.
    pub life: Life,
    /// Its workers; those of the lives around it are others.
    pub workers: u32,
    /// What is done to it, and to those after it.
    pub strikes: Vec<Strike>,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.fault, self.nth, self.operation, self.place)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(4, ':');
        let fault = parts.next().unwrap_or_default().parse()?;
        let nth = parts.next().and_then(|nth| nth.parse().ok()).filter(|nth| *nth > 0);
        let nth = nth.ok_or_else(|| {
            format!("{text}: FAULT:NTH:OPERATION:PLACE is asked for, as in lie:2:link:checkpoints/log")
        })?;
        let operation = parts.next().unwrap_or("*").to_owned();
        Ok(Strike { fault, nth, operation, place: parts.next().unwrap_or_default().to_owned() })
    }
}

impl Case {
    /// The options of `attack` that run it alone.
    #[must_use]
    pub fn options(&self) -> String {
        let later = if self.life == Life::Later { " --later" } else { "" };
        let strikes: Vec<String> = self.strikes.iter().map(|strike| format!("--strike '{strike}'")).collect();
        format!("--workers {}{later} {}", self.workers, strikes.join(" "))
    }
}

/// All cases: each fault that fits, at the first, a middle and a late operation of each sort; and at every
/// `every`-th operation of all, whatever it is, a death before and after it, an error, a lie and a long wait.
#[must_use]
pub fn cases(learned: &[Learned], every: u64) -> Vec<Case> {
    let mut all = Vec::new();
    for Learned { life, trace, sorts } in learned {
        for ((operation, place), count) in sorts {
            for fault in Fault::ALL.into_iter().filter(|fault| fault.fits(operation)) {
                // Another run may have a few less: it is not asked for the last one.
                let mut nths = vec![1, count / 2, count * 9 / 10];
                nths.retain(|nth| *nth > 0);
                nths.dedup();
                if fault == Fault::Hang {
                    // Each takes as long as a stop may.
                    nths.truncate(1 + usize::from(*life == Life::Later));
                    nths.drain(..nths.len() - 1);
                }
                let strike = |nth| Strike { fault, nth, operation: operation.clone(), place: place.clone() };
                all.extend(nths.into_iter().map(|nth| (*life, strike(nth))));
            }
        }
        let faults = [Fault::KillBefore, Fault::KillAfter, Fault::Error, Fault::Lie, Fault::Sleep];
        for nth in (1..=trace.len() as u64 * 9 / 10).step_by(every.max(1) as usize) {
            let fault = faults[(nth / every.max(1)) as usize % faults.len()];
            all.push((*life, Strike { fault, nth, operation: "*".into(), place: String::new() }));
        }
    }
    let case =
        |(at, (life, strike)): (usize, _)| Case { life, workers: 1 + at as u32 % 3, strikes: vec![strike] };
    all.into_iter().enumerate().map(case).collect()
}

/// So many of the cases, of as many sorts as that allows, chosen by a seed; every third of them strikes the next
/// life, too.
#[must_use]
pub fn some(all: &[Case], wanted: usize, seed: u64) -> Vec<Case> {
    let mut random = Random::new(seed);
    let mut order: Vec<(u64, &Case)> = all.iter().map(|case| (random.bits(), case)).collect();
    order.sort_by_key(|(at, _)| *at);
    // One of each fault in turn, so that rare ones are there, too.
    let mut by_fault: Vec<Vec<&Case>> = vec![Vec::new(); Fault::ALL.len()];
    for (_, case) in order {
        let first =
            case.strikes.first().and_then(|strike| Fault::ALL.iter().position(|f| *f == strike.fault));
        by_fault[first.unwrap_or_default()].push(case);
    }
    let mut chosen: Vec<Case> = Vec::new();
    while chosen.len() < wanted && by_fault.iter().any(|cases| !cases.is_empty()) {
        for case in by_fault.iter_mut().filter_map(Vec::pop) {
            chosen.push(case.clone());
        }
    }
    chosen.truncate(wanted);
    let second: Vec<Strike> = chosen.iter().rev().flat_map(|case| case.strikes.clone()).collect();
    for (case, strike) in chosen.iter_mut().zip(second).step_by(3) {
        case.strikes.push(strike);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Traced;

    fn learned() -> Learned {
        let trace: Vec<Traced> = (0..40)
            .map(|n| Traced {
                operation: if n % 2 == 0 { "write" } else { "link" }.into(),
                path: format!("a/b/{n}"),
            })
            .collect();
        let sorts = ["write", "link"].map(|operation| ((operation.to_owned(), "a/b".to_owned()), 20));
        Learned { life: Life::First, trace, sorts: sorts.into() }
    }

    #[test]
    fn a_strike_is_read_as_it_is_written() {
        for strike in cases(&[learned()], 7).into_iter().flat_map(|case| case.strikes) {
            assert_eq!(strike.to_string().parse(), Ok(strike));
        }
        for wrong in ["", "kill-before", "lie:0:link:", "lie:x", "love:1:link:"] {
            assert!(wrong.parse::<Strike>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_small_choice_has_every_fault_that_there_is_and_struck_successors() {
        let all = cases(&[learned()], 7);
        let chosen = some(&all, 30, 1);
        assert_eq!((chosen.len(), chosen.clone()), (30, some(&all, 30, 1)));
        for fault in Fault::ALL.into_iter().filter(|fault| fault.fits("write") || fault.fits("link")) {
            assert!(chosen.iter().any(|case| case.strikes[0].fault == fault), "{fault}");
        }
        assert_eq!(chosen.iter().filter(|case| case.strikes.len() == 2).count(), 10);
    }
}
