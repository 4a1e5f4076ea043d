//! The shape of a step's types as text, so that a changed type is refused with a readable difference.

use crate::key::{Namespace, StateKey, StateValue};
use serde::de::DeserializeOwned;
use serde_reflection::{
    ContainerFormat, Format, Named, Registry, Samples, Tracer, TracerConfig, VariantFormat,
};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Bound on the passes at tracing a type: two for each variant of an enum.
const PASSES: usize = 128;
/// serde-reflection gives variants such numbers until it knows better.
const UNNUMBERED: u32 = u32::MAX / 2;

/// The shape of a step's entries, one line a fact: the three types, then every struct and enum with
/// its fields, sorted by name. Postcard identifies fields by position, so order counts.
///
/// A type whose `Deserialize` accepts only certain values (a parsed timestamp, say) cannot be traced;
/// its Rust name stands for it, and a changed definition of it goes unnoticed. Of an enum that occurs
/// inside an `Option`, list or map only, not all variants may be found; it says so.
#[must_use]
pub fn schema_of<K: StateKey, N: Namespace, V: StateValue>() -> String {
    let mut text = String::new();
    let mut all = Registry::new();
    for (role, (name, types)) in [("key", shape::<K>()), ("namespace", shape::<N>()), ("value", shape::<V>())]
    {
        let _ = writeln!(text, "{role}: {name}");
        all.extend(types);
    }
    for (name, container) in &all {
        describe(name, container, &mut text);
    }
    text
}

/// A line-by-line difference: `-` lines are only in `old`, `+` lines only in `new`.
#[must_use]
pub fn schema_diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // Length of the longest common subsequence of the tails.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (sign, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', old[i - 1])
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        let _ = writeln!(text, "{sign} {line}");
    }
    text
}

/// A type's name and the containers that it is made of.
fn shape<T: DeserializeOwned>() -> (String, Registry) {
    let samples = Samples::new();
    let mut best = None;
    let mut enums: BTreeSet<String> = BTreeSet::new();
    // One pass sees one more variant of each enum, and only of those that it is told of. So passes
    // are repeated, one more each time, until no variant is missing.
    for passes in 1..PASSES {
        let mut tracer = Tracer::new(TracerConfig::default());
        let mut name = None;
        for _ in 0..passes {
            for one in &enums {
                let _ = tracer.check_incomplete_enum(one);
            }
            name = tracer.trace_type_once::<T>(&samples).ok().map(|(format, _)| format_name(&format));
        }
        let registry = tracer.registry_unchecked();
        let Some(name) = name else { break };
        let missing: Vec<_> = incomplete(&registry).map(str::to_owned).collect();
        best = Some((name, registry));
        if missing.is_empty() {
            break;
        }
        enums.extend(missing);
    }
    best.unwrap_or_else(|| (std::any::type_name::<T>().to_owned(), Registry::new()))
}

/// Enums with variants whose number was not found out.
fn incomplete(registry: &Registry) -> impl Iterator<Item = &str> {
    let enums = registry.iter().filter(|(_, container)| match container {
        ContainerFormat::Enum(variants) => variants.keys().any(|number| *number >= UNNUMBERED),
        _ => false,
    });
    enums.map(|(name, _)| &name[..])
}

fn describe(name: &str, container: &ContainerFormat, text: &mut String) {
    let _ = match container {
        ContainerFormat::UnitStruct => writeln!(text, "struct {name}"),
        ContainerFormat::NewTypeStruct(inner) => {
            writeln!(text, "struct {name}({})", format_name(inner))
        }
        ContainerFormat::TupleStruct(inner) => writeln!(text, "struct {name}({})", list(inner)),
        ContainerFormat::Struct(fields) => {
            let _ = writeln!(text, "struct {name}");
            describe_fields("  ", fields, text);
            Ok(())
        }
        ContainerFormat::Enum(variants) => {
            let partly = variants.keys().any(|number| *number >= UNNUMBERED);
            let _ = writeln!(text, "enum {name}{}", if partly { " (not all variants)" } else { "" });
            for (number, variant) in variants.iter().filter(|(number, _)| **number < UNNUMBERED) {
                let _ = match &variant.value {
                    VariantFormat::NewType(inner) => {
                        writeln!(text, "  {number} {}({})", variant.name, format_name(inner))
                    }
                    VariantFormat::Tuple(inner) => {
                        writeln!(text, "  {number} {}({})", variant.name, list(inner))
                    }
                    VariantFormat::Struct(fields) => {
                        let _ = writeln!(text, "  {number} {}", variant.name);
                        describe_fields("    ", fields, text);
                        Ok(())
                    }
                    VariantFormat::Unit | VariantFormat::Variable(_) => {
                        writeln!(text, "  {number} {}", variant.name)
                    }
                };
            }
            Ok(())
        }
    };
}

fn describe_fields(indent: &str, fields: &[Named<Format>], text: &mut String) {
    for field in fields {
        let _ = writeln!(text, "{indent}{}: {}", field.name, format_name(&field.value));
    }
}

fn list(formats: &[Format]) -> String {
    formats.iter().map(format_name).collect::<Vec<_>>().join(", ")
}

fn format_name(format: &Format) -> String {
    match format {
        Format::Variable(_) => "?".to_owned(),
        Format::TypeName(name) => name.clone(),
        Format::Unit => "()".to_owned(),
        Format::Option(inner) => format!("Option<{}>", format_name(inner)),
        Format::Seq(inner) => format!("[{}]", format_name(inner)),
        Format::Map { key, value } => format!("{{{}: {}}}", format_name(key), format_name(value)),
        Format::Tuple(inner) => format!("({})", list(inner)),
        Format::TupleArray { content, size } => format!("[{}; {size}]", format_name(content)),
        simple => format!("{simple:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Serialize, Deserialize)]
    struct Total {
        count: u64,
        kind: Kind,
        parts: Vec<Option<Unit>>,
        names: std::collections::BTreeMap<String, [u8; 4]>,
    }

    #[derive(Clone, Serialize, Deserialize)]
    enum Unit {
        Metre,
        Second,
    }

    #[derive(Clone, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Weighted(f64),
        Named { name: String, pair: (i32, char) },
    }

    #[test]
    fn structs_and_enums_are_written_with_their_fields() {
        let expected = "\
key: str
namespace: i64
value: Total
enum Kind
  0 Plain
  1 Weighted(f64)
  2 Named
    name: str
    pair: (i32, char)
struct Total
  count: u64
  kind: Kind
  parts: [Option<Unit>]
  names: {str: [u8; 4]}
enum Unit (not all variants)
";
        assert_eq!(schema_of::<String, i64, Total>(), expected);
    }

    #[derive(Serialize)]
    struct Picky(u8);

    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u8::deserialize(from)? {
                7 => Ok(Self(7)),
                _ => Err(serde::de::Error::custom("only seven will do")),
            }
        }
    }

    #[test]
    fn a_type_that_cannot_be_traced_is_named() {
        let schema = schema_of::<u64, (), Picky>();
        assert!(schema.starts_with("key: u64\nnamespace: ()\nvalue: staunch_state::schema::"), "{schema}");
    }

    #[test]
    fn the_difference_shows_what_went_and_what_came() {
        let old = "key: u64\nstruct A\n  x: u32\n  y: u8\n";
        let new = "key: u64\nstruct A\n  x: u64\n  y: u8\n  z: bool\n";
        let expected = "  key: u64\n  struct A\n-   x: u32\n+   x: u64\n    y: u8\n+   z: bool\n";
        assert_eq!(schema_diff(old, new), expected);
    }
}
