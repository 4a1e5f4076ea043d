//! What was found out about types, as text.

use super::found::{Body, Content, Format, Found};
use std::collections::BTreeMap;
use std::fmt::Write;

/// One line for each place with its role, then every struct and enum, sorted by name. Of different types with
/// one name the second to be met is called `Name#2`, the third `Name#3`.
pub(super) fn write(found: &Found, roots: &[(&str, usize)]) -> String {
    let mut order = Vec::new();
    for (_, place) in roots {
        collect(found, *place, &mut order);
    }
    let names = found.types.iter().map(|named| named.name.to_owned()).collect();
    let mut text = Text { found, labels: names };
    text.number(&order);
    let mut whole = String::new();
    for (role, place) in roots {
        let _ = writeln!(whole, "{role}: {}", text.place(*place));
    }
    let types: BTreeMap<&str, String> =
        order.iter().map(|id| (&text.labels[*id][..], text.define(*id))).collect();
    whole.extend(types.into_values());
    whole
}

/// The types at a place, in the order in which they are met.
fn collect(found: &Found, place: usize, order: &mut Vec<usize>) {
    for format in &found.places[place].formats {
        match *format {
            Format::Plain(_) | Format::Itself => {}
            Format::Option(inner) | Format::List(inner) => collect(found, inner, order),
            Format::Map(key) => {
                collect(found, key, order);
                collect(found, key + 1, order);
            }
            Format::Tuple(row) => found.read(row).for_each(|part| collect(found, part, order)),
            Format::Named(id) if order.contains(&id) => {}
            Format::Named(id) => {
                order.push(id);
                let contents: Vec<Content> = match &found.types[id].body {
                    Body::Struct(content) => vec![*content],
                    Body::Enum(variants) => {
                        let variants = &found.variants[variants.clone()];
                        variants.iter().flat_map(|variant| variant.contents.iter().copied()).collect()
                    }
                };
                contents
                    .into_iter()
                    .flat_map(|content| found.parts(content))
                    .for_each(|part| collect(found, part, order));
            }
        }
    }
}

struct Text<'a> {
    found: &'a Found,
    /// What each type is called.
    labels: Vec<String>,
}

impl Text<'_> {
    /// Tells types of one name apart if their texts differ. That makes the texts of others differ that
    /// contain them, so it is repeated until nothing changes.
    fn number(&mut self, order: &[usize]) {
        loop {
            let mut labels = self.labels.clone();
            let mut known: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for id in order {
                let name = self.found.types[*id].name;
                let texts = known.entry(name).or_default();
                let text = self.define(*id);
                let number = texts.iter().position(|other| *other == text).unwrap_or(texts.len());
                if number == texts.len() {
                    texts.push(text);
                }
                labels[*id] = if number == 0 { name.to_owned() } else { format!("{name}#{}", number + 1) };
            }
            if labels == self.labels {
                return;
            }
            self.labels = labels;
        }
    }

    fn define(&self, id: usize) -> String {
        let label = &self.labels[id];
        let mut text = String::new();
        match &self.found.types[id].body {
            Body::Struct(content) => self.content(&format!("struct {label}"), "  ", *content, &mut text),
            Body::Enum(variants) => {
                let variants = &self.found.variants[variants.clone()];
                // serde counts an alias as a name, and does not say of which variant.
                let last = variants.iter().rposition(|variant| !variant.contents.is_empty());
                let accepted = last.map_or(0, |last| last + 1);
                let plain = accepted == variants.len();
                let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
                let names = if plain { String::new() } else { format!(" ({})", names.join(", ")) };
                let _ = writeln!(text, "enum {label}{names}");
                for (number, variant) in variants[..accepted].iter().enumerate() {
                    let name = if plain { format!(" {}", variant.name) } else { String::new() };
                    let head = format!("  {number}{name}");
                    if variant.contents.is_empty() {
                        let _ = writeln!(text, "{head}: unknown");
                    }
                    for content in &variant.contents {
                        self.content(&head, "    ", *content, &mut text);
                    }
                }
            }
        }
        text
    }

    fn content(&self, head: &str, indent: &str, content: Content, text: &mut String) {
        let _ = match content {
            Content::Nothing => writeln!(text, "{head}"),
            Content::One(place) => writeln!(text, "{head}({})", self.place(place)),
            Content::Tuple(row) => writeln!(text, "{head}({})", self.list(row).join(", ")),
            Content::Fields(row) => {
                let (names, formats) = (self.found.rows[row].names, self.list(row));
                // As above: with aliases there are more names than fields.
                let plain = names.len() == formats.len();
                let all = if plain { String::new() } else { format!(" ({})", names.join(", ")) };
                let _ = writeln!(text, "{head}{all}");
                for (number, (name, format)) in names.iter().zip(&formats).enumerate() {
                    let name = if plain { (*name).to_owned() } else { number.to_string() };
                    let _ = writeln!(text, "{indent}{name}: {format}");
                }
                Ok(())
            }
        };
    }

    fn list(&self, row: usize) -> Vec<String> {
        self.found.read(row).map(|place| self.place(place)).collect()
    }

    fn place(&self, place: usize) -> String {
        let place = &self.found.places[place];
        let formats: Vec<String> = place.formats.iter().map(|format| self.format(*format)).collect();
        let what = formats.join(" | ");
        let known: &str = match (place.rust, what.is_empty(), place.picky) {
            ("", true, _) => "unknown",
            (rust, true, _) => rust,
            (_, false, false) => &what,
            ("", false, true) => return format!("{what} of certain values"),
            (rust, false, true) => return format!("{rust} ({what} of certain values)"),
        };
        known.to_owned()
    }

    fn format(&self, format: Format) -> String {
        match format {
            Format::Plain(name) => name.to_owned(),
            Format::Itself => "itself".to_owned(),
            Format::Option(inner) => format!("Option<{}>", self.place(inner)),
            Format::List(inner) => format!("[{}]", self.place(inner)),
            Format::Map(key) => format!("{{{}: {}}}", self.place(key), self.place(key + 1)),
            Format::Named(id) => self.labels[id].clone(),
            Format::Tuple(row) => match &self.list(row)[..] {
                [first, others @ ..] if !others.is_empty() && others.iter().all(|other| other == first) => {
                    format!("[{first}; {}]", others.len() + 1)
                }
                all => format!("({})", all.join(", ")),
            },
        }
    }
}
