//! Whatever is found where a connector's own stored values should be (positions, staged rows, payloads of
//! prepared output, the owner of a directory): an error, or exactly what the value says. Never a panic, never an
//! absurd allocation, and no output that nobody prepared.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../by_hand/mod.rs"]
mod by_hand;
#[path = "../../../engine/checkpoint/tests/fuzz/mutate.rs"]
mod mutate;

mod collected;
mod parts;
mod positions;
mod staged;

use mutate::{Dice, Watched};
use serde_json::{Value, json};
use staunch_core::sink::{CommitError, Committer, Sink, SinkContext, SinkWriter};
use staunch_core::{CheckpointId, Committable, Error, Generation, InMemoryStorage};
use staunch_testing::conformance::sink::committable;
use std::fmt::Display;
use std::sync::Arc;

#[global_allocator]
static WATCHED: Watched = Watched;

/// What could be found in place of JSON that a connector wrote: the input if it is JSON, or else one of `good`
/// with a change that leaves it JSON. Most mutated bytes are none, and would not get as far as a connector.
fn altered(dice: &mut Dice, input: &[u8], good: &[Value]) -> Value {
    serde_json::from_slice(input).unwrap_or_else(|_| {
        let mut value = good[dice.below(good.len())].clone();
        change(dice, &mut value);
        value
    })
}

/// Changes a value, or something inside of it.
fn change(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Array(items) if !items.is_empty() && dice.below(16) > 0 => {
            let at = dice.below(items.len());
            match dice.below(16) {
                0 => drop(items.remove(at)),
                1 => {
                    let again = items[at].clone();
                    items.push(again);
                }
                _ => change(dice, &mut items[at]),
            }
        }
        Value::Object(fields) if !fields.is_empty() && dice.below(16) > 0 => {
            let at = dice.below(fields.len());
            let Some(name) = fields.keys().nth(at).cloned() else { return };
            match dice.below(16) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let field = fields.remove(&name).unwrap_or_default();
                    fields.insert("another".to_owned(), field);
                }
                _ => {
                    if let Some(field) = fields.get_mut(&name) {
                        change(dice, field);
                    }
                }
            }
        }
        Value::String(text) if dice.below(16) > 0 => {
            let bytes = dice.input(&[text.clone().into_bytes()]);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Number(number) if dice.below(16) > 0 => {
            let known = number.as_u64().unwrap_or(0);
            let other = match dice.below(6) {
                0 => known ^ (1 << dice.below(64)),
                1 | 2 => known ^ (1 << dice.below(8)),
                3 => dice.below(40) as u64,
                4 => 0,
                _ => u64::MAX,
            };
            *value = other.into();
        }
        _ => {
            let others = [Value::Null, json!(true), json!(-1), json!(1.5), json!(""), json!([]), json!({})];
            *value = others[dice.below(others.len())].clone();
        }
    }
}

fn texts(values: &[Value]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.to_string().into_bytes()).collect()
}

/// Shows what was made of an input, if the test fails over it.
struct Shown<'a>(&'a dyn Display);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("made into: {}", self.0);
        }
    }
}

/// Each outcome is a good share of them all: otherwise hardly anything was tried.
fn all_common(outcomes: &[(&str, u64)]) {
    let all: u64 = outcomes.iter().map(|(_, count)| count).sum();
    println!("{outcomes:?}");
    assert!(outcomes.iter().all(|(_, count)| count * 50 >= all), "{outcomes:?}");
}

/// A panic on a thread of its own comes back as an error that says so.
fn no_panic(why: &Error) {
    let why = why.to_string();
    assert!(!why.contains("a blocking task died") && !why.contains("a reading thread died"), "{why}");
}

/// The text of a refusal. Nothing in memory is ever to be asked again.
fn refusal(error: CommitError) -> String {
    match error {
        CommitError::Refused(why) => {
            no_panic(&why);
            why.to_string()
        }
        CommitError::Retry(why) => panic!("wants to be asked again: {why}"),
    }
}

fn context(storage: &InMemoryStorage, generation: u64) -> SinkContext {
    let mut context = SinkContext::alone("out");
    (context.job, context.lineage) = ("job".into(), "life-1".into());
    (context.generation, context.fresh) = (Generation(generation), false);
    context.storage = Arc::new(storage.clone());
    context
}

/// What checkpoints 1, 2 and so on list of a sink after these epochs.
async fn prepared<S: Sink>(sink: &S, context: &SinkContext, epochs: &[Vec<S::Record>]) -> Vec<Committable>
where
    S::Record: Clone,
{
    sink.committer(context).await.unwrap().recover(&[]).await.unwrap();
    let mut writer = sink.writer(context).await.unwrap();
    let mut listed = Vec::new();
    for (checkpoint, records) in (1..).zip(epochs) {
        writer.write(records.clone()).await.unwrap();
        for one in writer.cut(CheckpointId(checkpoint)).unwrap().await.unwrap() {
            listed.push(committable(checkpoint, 0, context.generation.0, &one).unwrap());
        }
    }
    listed
}
