//! Whether a step may go on with state that was built by another operator, or with other parameters.
//!
//! The shape of the state is the same in that case, so nothing else would notice: windows of a minute would be taken for
//! windows of five.

use super::worker::StateOfStep;
use crate::error::{Error, Result};
use staunch_checkpoint::{CheckpointId, StatePart};
use std::collections::BTreeSet;

/// Refuses what changed since the checkpoint, unless the step can live with it and the user accepts it.
pub(super) fn check(
    checkpoint: CheckpointId,
    stored: &StatePart,
    now: &StateOfStep,
    accepted: &BTreeSet<String>,
) -> Result<()> {
    let StateOfStep { step: name, properties, .. } = now;
    let changes = changes(stored, now);
    if changes.is_empty() {
        return Ok(());
    }
    let text: Vec<String> = changes.iter().map(|change| format!("  {}", change.text)).collect();
    let (fixed, acceptable) = (changes.iter().any(|change| !change.may_be), accepted.contains(name));
    if !fixed && acceptable {
        tracing::warn!(step = name, "goes on with a change that was accepted:\n{}", text.join("\n"));
        return Ok(());
    }
    let what_to_do = if fixed {
        let can: Vec<&str> = properties.may_change.iter().map(String::as_str).collect();
        let can =
            if can.is_empty() { String::new() } else { format!(" (only {} may change)", can.join(", ")) };
        format!(
            "its state was built with that and cannot go on with another{can}: change it back, give the step a new \
             name in a job that starts anew, or start with --from none and another output"
        )
    } else {
        format!("change it back, or go on with the new value from here on: --accept-change {name}")
    };
    Err(Error::job(format!(
        "the step is not the one that wrote its state of checkpoint {checkpoint}:\n{}\n{what_to_do}",
        text.join("\n")
    ))
    .in_step(name))
}

struct Change {
    text: String,
    may_be: bool,
}

fn changes(stored: &StatePart, now: &StateOfStep) -> Vec<Change> {
    let mut changes = Vec::new();
    let properties = &now.properties;
    if stored.operator != properties.operator {
        let text = format!("operator: was `{}`, is `{}`", stored.operator, properties.operator);
        changes.push(Change { text, may_be: true });
    }
    let names: BTreeSet<&String> = stored.parameters.keys().chain(properties.parameters.keys()).collect();
    for parameter in names {
        let (was, is) = (stored.parameters.get(parameter), properties.parameters.get(parameter));
        if was != is {
            let said = |value: Option<&String>| value.cloned().unwrap_or_else(|| "nothing".to_owned());
            let text = format!("{parameter}: was {}, is {}", said(was), said(is));
            changes.push(Change { text, may_be: properties.may_change.contains(parameter) });
        }
    }
    changes
}
