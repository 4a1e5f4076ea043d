//! Makes up values until all is known about a type.
//!
//! In a pass a type deserialises itself from made-up values, and what it asks for is noted. One pass sees one
//! variant of each enum that it meets, so passes are repeated. Where a pass has a choice (a variant; something
//! or nothing in an option, list or map), it goes where something is left to be found out, and else takes the
//! shortest way. A type inside itself always takes the shortest way, so recursive types end.
//!
//! What it cannot know: what is behind a value that no sample is like. The pass ends there.
//!
//! Each value that comes out of it is written and read back, and so are some made of nothing but plain values (0,
//! an empty text, nothing): fields are left out for such values.

use super::found::{Body, Content, Format, Found, Variant};
use super::reader::{Reader, Refused};
use crate::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::cell::Cell;
use std::mem;

/// Bound on the work for one type, in places looked at. Ordinary types take some thousands.
const STEPS: u64 = 10_000_000;
/// Bound on values inside one another.
const DEPTH: usize = 100;
/// Bound on the combinations of samples for one place that accepts none.
const ATTEMPTS: usize = 1000;
/// Bound on the passes with plain values.
const PLAIN: usize = 1000;
/// How many passes may find nothing, one after another, before the search ends.
const IDLE: usize = 16;

/// Something that a pass has chosen and could choose otherwise.
enum Choice {
    /// One of so many samples, at a place.
    Sample(usize, usize),
    /// Nothing in an option, list or map.
    Empty(usize),
    Variant(usize),
}

/// Something that a pass need not have gone into.
#[derive(Clone, Copy)]
enum Frame {
    /// The inside of an option, list or map.
    Inside(usize),
    Variant(usize),
}

/// Where a pass ended.
struct Failure {
    /// The place whose type refused; none if the variant of the frame was refused as such.
    place: Option<usize>,
    /// How many choices had been made before that place.
    choices: usize,
    frame: Option<Frame>,
}

/// The search. See the head of this file.
#[derive(Default)]
pub(super) struct Trace {
    pub found: Found,
    steps: Cell<u64>,
    /// The choices of this pass, in order.
    choices: Vec<Choice>,
    /// What is being read and was chosen, from outside to inside.
    frames: Vec<Frame>,
    /// Visitors of the options, lists and maps that are being read, since the last type with a name.
    nameless: Vec<&'static str>,
    depth: usize,
    deepest: usize,
    failure: Option<Failure>,
    /// How many of the types that are being read are inside themselves.
    nested: usize,
    /// This pass is to be of plain values.
    plain: bool,
}

impl Trace {
    /// Finds out about a type; returns the place where its values are read.
    pub(super) fn explore<T: Serialize + DeserializeOwned>(&mut self) -> usize {
        let root = self.found.new_places(1).start;
        self.steps.set(0);
        let mut idle = 0;
        while idle < IDLE && self.steps.get() < STEPS {
            let accepted = self.pass::<T>(root);
            let onwards = self.found.news || (!accepted && self.evade());
            idle = if onwards { 0 } else { idle + 1 };
        }
        self.plain = true;
        for _ in 0..PLAIN {
            let accepted = self.pass::<T>(root);
            let failed = self.failure.take().and_then(|failure| failure.place);
            let other =
                failed.is_some_and(|place| !mem::replace(&mut self.found.places[place].not_plain, true));
            if self.steps.get() >= STEPS || !(other || (accepted && self.found.news)) {
                break;
            }
        }
        self.plain = false;
        root
    }

    /// Reads one value, and sees whether it can be stored; false if it was not accepted.
    fn pass<T: Serialize + DeserializeOwned>(&mut self, root: usize) -> bool {
        self.found.news = false;
        self.choices.clear();
        self.deepest = 0;
        self.failure = None;
        let outcome = self.at(root, type_name::<T>(), |reader| T::deserialize(reader));
        if let Ok(value) = &outcome
            && let Err(problem) = codec::prove(value)
        {
            self.found.refuse(type_name::<T>(), problem);
        }
        outcome.is_ok()
    }

    /// Reads a value at a place. `rust` is its type, if it is known.
    pub(super) fn at<T>(
        &mut self,
        place: usize,
        rust: &'static str,
        read: impl FnOnce(Reader<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        if !rust.is_empty() {
            self.found.places[place].rust = rust;
        }
        self.step();
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        let choices = self.choices.len();
        let result = if self.depth > DEPTH || self.steps.get() > STEPS {
            Err(Refused)
        } else {
            read(Reader { trace: &mut *self, place })
        };
        self.depth -= 1;
        if result.is_ok() {
            self.failure = None;
            self.found.places[place].picky = false;
        } else if self.failure.is_none() {
            let frame = self.frames.last().copied();
            self.failure = Some(Failure { place: Some(place), choices, frame });
        }
        result
    }

    /// Notes a value without parts; returns which of so many samples it is to be.
    pub(super) fn sample(&mut self, place: usize, format: &'static str, count: usize, plain: usize) -> usize {
        self.found.note(place, Format::Plain(format));
        if self.plain && !self.found.places[place].not_plain {
            return plain;
        }
        self.choices.push(Choice::Sample(place, count));
        self.found.places[place].sample % count
    }

    /// Begins an option, list or map. Returns the place inside it, or nothing if it is to be empty. What was
    /// entered must be left.
    pub(super) fn enter(
        &mut self,
        place: usize,
        visitor: &'static str,
        make: fn(usize) -> Format,
    ) -> Option<usize> {
        let count = if matches!(make(0), Format::Map(_)) { 2 } else { 1 };
        let inner = match self.found.inside(place, make) {
            Some(inner) => inner,
            None if self.nameless.contains(&visitor) => {
                self.found.note(place, Format::Itself);
                return None;
            }
            None => {
                let inner = self.found.new_places(count).start;
                self.found.note(place, make(inner));
                inner
            }
        };
        let (cut, full) = (self.found.places[place].cut, self.found.places[place].full);
        if cut || (self.plain && !full && !self.goes_into(place)) {
            return None;
        }
        if !self.plain && !full && !(inner..inner + count).any(|part| self.is_open(part)) {
            self.choices.push(Choice::Empty(place));
            return None;
        }
        self.nameless.push(visitor);
        self.frames.push(Frame::Inside(place));
        Some(inner)
    }

    /// Whether a pass with plain values goes into an option, list or map: not the first time, and not in a type
    /// inside itself.
    fn goes_into(&mut self, place: usize) -> bool {
        if self.nested > 0 {
            return false;
        }
        let times = &mut self.found.places[place].plain;
        *times += 1;
        self.found.news |= *times <= 2;
        *times > 1
    }

    /// Ends what was entered last.
    pub(super) fn leave(&mut self) {
        self.nameless.pop();
        self.frames.pop();
    }

    /// Reads a struct or enum.
    pub(super) fn within<T>(
        &mut self,
        id: usize,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        self.found.types[id].visits += 1;
        let nested = self.nested;
        self.nested += usize::from(self.found.types[id].visits > 1);
        let nameless = mem::take(&mut self.nameless);
        let result = read(self);
        self.nameless = nameless;
        self.nested = nested;
        self.found.types[id].visits -= 1;
        result
    }

    /// Reads an enum: `read` is given the variant and its number in the enum.
    pub(super) fn within_variant<T>(
        &mut self,
        id: usize,
        read: impl FnOnce(&mut Self, usize, u32) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let Some((variant, index)) = self.choose(id) else { return Err(Refused) };
        self.choices.push(Choice::Variant(variant));
        self.frames.push(Frame::Variant(variant));
        let plain = self.plain;
        let chosen = &mut self.found.variants[variant];
        let tries = if plain { &mut chosen.plain } else { &mut chosen.tries };
        *tries += 1;
        self.found.news |= *tries == 1;
        chosen.visits += 1;
        let outside = mem::replace(&mut self.deepest, self.depth);
        let choices = self.choices.len();
        let result = self.within(id, |trace| read(trace, variant, index));
        let height = self.deepest - self.depth;
        self.deepest = self.deepest.max(outside);
        let frame = self.frames.pop();
        let chosen = &mut self.found.variants[variant];
        chosen.visits -= 1;
        if result.is_ok() {
            let lowest = chosen.height.map_or(height, |known| known.min(height));
            self.found.news |= chosen.height.is_none();
            chosen.height = Some(lowest);
        } else if self.failure.is_none() {
            self.failure = Some(Failure { place: None, choices, frame });
        }
        result
    }

    /// The variant to read, and its number in the enum. None if each would need another value of the enum.
    fn choose(&self, id: usize) -> Option<(usize, u32)> {
        let Body::Enum(all) = &self.found.types[id].body else { return None };
        let variants = &self.found.variants;
        let usable: Vec<(usize, u32)> =
            all.clone().zip(0..).filter(|(at, _)| !variants[*at].barred).collect();
        let finite = usable.iter().filter(|(at, _)| variants[*at].height.is_some());
        let lowest = finite.min_by_key(|(at, _)| (variants[*at].avoid, variants[*at].height));
        if lowest.is_some() && self.found.types[id].visits > 0 {
            return lowest.copied();
        }
        if self.plain {
            let known =
                usable.iter().filter(|(at, _)| variants[*at].visits == 0 && variants[*at].height.is_some());
            return known.min_by_key(|(at, _)| variants[*at].plain).or(lowest).copied();
        }
        let open = usable.iter().filter(|(at, _)| {
            let mut seen = vec![false; self.found.types.len()];
            seen[id] = true;
            variants[*at].visits == 0 && self.is_open_variant(&variants[*at], &mut seen)
        });
        open.min_by_key(|(at, _)| variants[*at].tries).or(lowest).copied()
    }

    /// Whether something is left to be found out at a place, other than in the types that are being read.
    fn is_open(&self, place: usize) -> bool {
        self.is_open_place(place, &mut vec![false; self.found.types.len()])
    }

    fn is_open_place(&self, place: usize, seen: &mut [bool]) -> bool {
        self.step();
        let place = &self.found.places[place];
        place.formats.is_empty()
            || place.formats.iter().any(|format| match *format {
                Format::Plain(_) | Format::Itself => false,
                Format::Option(inner) | Format::List(inner) => !place.cut && self.is_open_place(inner, seen),
                Format::Map(key) => {
                    !place.cut && (self.is_open_place(key, seen) || self.is_open_place(key + 1, seen))
                }
                Format::Tuple(row) => self.is_open_content(Content::Tuple(row), seen),
                Format::Named(id) => self.is_open_type(id, seen),
            })
    }

    fn is_open_type(&self, id: usize, seen: &mut [bool]) -> bool {
        let found = &self.found.types[id];
        if mem::replace(&mut seen[id], true) || found.visits > 0 {
            return false;
        }
        match &found.body {
            Body::Struct(content) => self.is_open_content(*content, seen),
            Body::Enum(variants) => self.found.variants[variants.clone()]
                .iter()
                .any(|variant| self.is_open_variant(variant, seen)),
        }
    }

    fn is_open_variant(&self, variant: &Variant, seen: &mut [bool]) -> bool {
        let inside = |content: &Content| self.is_open_content(*content, seen);
        !variant.barred && (variant.height.is_none() || variant.contents.iter().any(inside))
    }

    fn is_open_content(&self, content: Content, seen: &mut [bool]) -> bool {
        self.found.parts(content).any(|place| self.is_open_place(place, seen))
    }

    /// After a pass that found nothing and failed: makes the next one go another way. False if there is none.
    fn evade(&mut self) -> bool {
        let Some(failure) = self.failure.take() else { return false };
        if let Some(place) = failure.place {
            if self.found.places[place].attempts < ATTEMPTS {
                self.found.places[place].attempts += 1;
                if self.choose_otherwise(failure.choices) {
                    return true;
                }
                self.found.places[place].attempts = ATTEMPTS;
            }
            self.found.places[place].picky = true;
        }
        match failure.frame {
            Some(Frame::Inside(place)) => self.found.places[place].cut = true,
            Some(Frame::Variant(variant)) => self.found.variants[variant].barred = true,
            None => return false,
        }
        true
    }

    /// The next combination of this pass's choices, those before `from` apart; the last one changes first.
    /// False if that was the last combination.
    fn choose_otherwise(&mut self, from: usize) -> bool {
        for choice in self.choices.drain(from..).rev() {
            let changed = match choice {
                Choice::Sample(place, count) => {
                    let sample = &mut self.found.places[place].sample;
                    *sample = (*sample + 1) % count;
                    *sample != 0
                }
                Choice::Empty(place) => {
                    let full = &mut self.found.places[place].full;
                    *full = !*full;
                    *full
                }
                Choice::Variant(variant) => {
                    let avoid = &mut self.found.variants[variant].avoid;
                    *avoid = !*avoid;
                    *avoid
                }
            };
            if changed {
                return true;
            }
        }
        false
    }

    fn step(&self) {
        self.steps.set(self.steps.get() + 1);
    }
}
