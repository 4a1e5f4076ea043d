//! What is known about types: the places where a value is read, and what is read there.

use crate::error::Problem;
use std::collections::HashMap;
use std::ops::Range;

/// Bound on the elements of a tuple or array; those behind it stay unknown.
const PARTS: usize = 1 << 16;

/// What is read at a place. The numbers are those of places, rows and types in [`Found`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Something without parts: a number, a string.
    Plain(&'static str),
    Option(usize),
    List(usize),
    /// The place of the keys; that of the values is the next one.
    Map(usize),
    Tuple(usize),
    Named(usize),
    /// The option, list or map that this place is in, without a type of a name in between.
    Itself,
}

/// Where one value is read: a field, an element, what is in an option.
#[derive(Default)]
pub(super) struct Place {
    /// The type in Rust; empty as long as nothing was read.
    pub rust: &'static str,
    /// Nearly always one. There are more if it depends on a value what is read.
    pub formats: Vec<Format>,
    /// No made-up value was accepted.
    pub picky: bool,
    /// Which of the made-up values is next.
    pub sample: usize,
    /// The plain value (0, an empty text) is not accepted.
    pub not_plain: bool,
    /// How often it came up in passes with plain values, if it is an option, list or map.
    pub plain: usize,
    /// How many other values were tried because this place accepted none.
    pub attempts: usize,
    /// An option, list or map that must not be empty.
    pub full: bool,
    /// An option, list or map that is left empty, because what would be in it is not accepted.
    pub cut: bool,
}

/// Values one after another: the fields of a struct, the elements of a tuple.
pub(super) struct Row {
    pub names: &'static [&'static str],
    pub places: Range<usize>,
    /// It was read to its end once. Places that were not asked for do not belong to it.
    pub done: bool,
}

/// What a struct or a variant is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    One(usize),
    Tuple(usize),
    Fields(usize),
}

/// A struct or enum.
pub(super) struct Type {
    pub name: &'static str,
    pub body: Body,
    /// How many values of it are being read, one inside another.
    pub visits: usize,
}

pub(super) enum Body {
    Struct(Content),
    /// Its variants, all of them and in order.
    Enum(Range<usize>),
}

#[derive(Default)]
pub(super) struct Variant {
    pub name: &'static str,
    /// Empty as long as the variant was not accepted.
    pub contents: Vec<Content>,
    pub tries: usize,
    pub visits: usize,
    /// How many values were inside one another in the lowest value of it so far.
    pub height: Option<usize>,
    /// It is not chosen any more, because something in it is not accepted.
    pub barred: bool,
    /// Another one is to be preferred.
    pub avoid: bool,
    /// How often it was read with plain values.
    pub plain: usize,
}

/// How a struct or a variant is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Unit,
    Newtype,
    Tuple(usize),
    Struct,
    Enum,
}

impl Kind {
    pub(super) fn tuple(count: usize) -> Self {
        Self::Tuple(count.min(PARTS))
    }
}

/// All that is known. Everything in it refers to others by number.
#[derive(Default)]
pub(super) struct Found {
    pub places: Vec<Place>,
    pub rows: Vec<Row>,
    pub types: Vec<Type>,
    pub variants: Vec<Variant>,
    /// Types by what they ask for and who asks: kind, name, fields or variants, visitor in Rust. The visitor
    /// tells types of one name apart, and those of different parameters.
    known: HashMap<(Kind, &'static str, &'static [&'static str], &'static str), usize>,
    /// Something was added.
    pub news: bool,
    /// Why values of the type cannot be stored, and which type that is: the first reason that was found.
    pub unfit: Option<(&'static str, Problem)>,
}

impl Found {
    /// New places, one after another.
    pub(super) fn new_places(&mut self, count: usize) -> Range<usize> {
        let first = self.places.len();
        self.places.resize_with(first + count, Place::default);
        first..first + count
    }

    /// Notes that values of a type cannot be stored.
    pub(super) fn refuse(&mut self, rust: &'static str, problem: Problem) {
        self.unfit.get_or_insert((rust, problem));
    }

    /// Notes what is read at a place.
    pub(super) fn note(&mut self, place: usize, format: Format) {
        let formats = &mut self.places[place].formats;
        if !formats.contains(&format) {
            formats.push(format);
            self.news = true;
        }
    }

    /// The place inside an option, list or map, if it is known.
    pub(super) fn inside(&self, place: usize, make: fn(usize) -> Format) -> Option<usize> {
        self.places[place].formats.iter().find_map(|format| match *format {
            Format::Option(inner) | Format::List(inner) | Format::Map(inner) => {
                (make(inner) == *format).then_some(inner)
            }
            _ => None,
        })
    }

    /// The row of a tuple.
    pub(super) fn tuple(&mut self, place: usize, count: usize) -> usize {
        let count = count.min(PARTS);
        let known = self.places[place].formats.iter().find_map(|format| match *format {
            Format::Tuple(row) if self.rows[row].places.len() == count => Some(row),
            _ => None,
        });
        if let Some(row) = known {
            return row;
        }
        let row = self.row(&[], count);
        self.note(place, Format::Tuple(row));
        row
    }

    /// A struct or enum that is read at a place.
    pub(super) fn named(
        &mut self,
        place: usize,
        kind: Kind,
        name: &'static str,
        parts: &'static [&'static str],
        visitor: &'static str,
    ) -> usize {
        let identity = (kind, name, parts, visitor);
        let id = match self.known.get(&identity) {
            Some(id) => *id,
            None => {
                let body = match kind {
                    Kind::Enum => {
                        let first = self.variants.len();
                        let variants = parts.iter().map(|&name| Variant { name, ..Variant::default() });
                        self.variants.extend(variants);
                        Body::Enum(first..self.variants.len())
                    }
                    _ => Body::Struct(self.content(kind, parts)),
                };
                self.types.push(Type { name, body, visits: 0 });
                let id = self.types.len() - 1;
                self.known.insert(identity, id);
                id
            }
        };
        self.note(place, Format::Named(id));
        id
    }

    /// What a variant is made of.
    pub(super) fn holds(&mut self, variant: usize, kind: Kind, parts: &'static [&'static str]) -> Content {
        let fits = |content: &&Content| match (kind, **content) {
            (Kind::Unit, Content::Nothing) | (Kind::Newtype, Content::One(_)) => true,
            (Kind::Tuple(count), Content::Tuple(row)) => self.rows[row].places.len() == count,
            (Kind::Struct, Content::Fields(row)) => self.rows[row].names == parts,
            _ => false,
        };
        if let Some(known) = self.variants[variant].contents.iter().find(fits) {
            return *known;
        }
        let content = self.content(kind, parts);
        self.variants[variant].contents.push(content);
        self.news = true;
        content
    }

    /// The places of a row that are read, as far as is known.
    pub(super) fn read(&self, row: usize) -> Range<usize> {
        let Row { places, done, .. } = &self.rows[row];
        let last = places.clone().rev().find(|place| !self.places[*place].rust.is_empty());
        let used = last.map_or(places.start, |last| last + 1);
        places.start..if *done { used } else { places.end }
    }

    /// The places that a struct or variant is made of.
    pub(super) fn parts(&self, content: Content) -> Range<usize> {
        match content {
            Content::Nothing => 0..0,
            Content::One(place) => place..place + 1,
            Content::Tuple(row) | Content::Fields(row) => self.read(row),
        }
    }

    fn content(&mut self, kind: Kind, parts: &'static [&'static str]) -> Content {
        match kind {
            Kind::Unit | Kind::Enum => Content::Nothing,
            Kind::Newtype => Content::One(self.new_places(1).start),
            Kind::Tuple(count) => Content::Tuple(self.row(&[], count)),
            Kind::Struct => Content::Fields(self.row(parts, parts.len())),
        }
    }

    fn row(&mut self, names: &'static [&'static str], count: usize) -> usize {
        let places = self.new_places(count);
        self.rows.push(Row { names, places, done: false });
        self.rows.len() - 1
    }
}
