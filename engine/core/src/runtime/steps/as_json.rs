//! Splits and positions as the JSON of a checkpoint: written only if they can be read again.
//!
//! Looked at is each value whose JSON has another shape than the last one: other fields, another variant, nothing
//! in place of something. Another number or text of the same shape is not worth reading back.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::type_name;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The JSON of a value of split `id`. `shape` is that of the last one.
pub(crate) fn to_json<T: Serialize + DeserializeOwned>(
    id: &str,
    what: &str,
    value: &T,
    shape: &mut Option<u64>,
) -> Result<Value> {
    let unfit = |why: String| {
        Error::job(format!(
            "split {id}: its {what}, of type {}, cannot be stored in a checkpoint: {why}. What its Serialize writes as JSON \
             its Deserialize must read: give a field with #[serde(skip)] or #[serde(skip_serializing_if)] a \
             #[serde(default)], the keys of a map a text form, and let no floating-point number be NaN",
            type_name::<T>()
        ))
    };
    let json = serde_json::to_value(value).map_err(|e| unfit(e.to_string()))?;
    let mut hasher = DefaultHasher::new();
    hash_shape(&json, &mut hasher);
    let found = Some(hasher.finish());
    if *shape != found {
        let read: T = serde_json::from_value(json.clone()).map_err(|e| unfit(format!("{json}: {e}")))?;
        let again = serde_json::to_value(read).map_err(|e| unfit(e.to_string()))?;
        if !is_same(&json, &again) {
            return Err(unfit(format!("it is written as {json} and comes back as {again}")));
        }
        *shape = found;
    }
    Ok(json)
}

fn hash_shape(json: &Value, to: &mut DefaultHasher) {
    std::mem::discriminant(json).hash(to);
    match json {
        Value::Array(items) => {
            items.len().hash(to);
            items.iter().for_each(|item| hash_shape(item, to));
        }
        Value::Object(fields) => {
            fields.len().hash(to);
            for (name, field) in fields {
                name.hash(to);
                hash_shape(field, to);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Equal, or lists of the same things: sets that hash have no order.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            let sorted = |items: &[Value]| {
                let mut texts: Vec<String> = items.iter().map(ToString::to_string).collect();
                texts.sort_unstable();
                texts
            };
            one == other || sorted(one) == sorted(other)
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(name, field)| other.get(name).is_some_and(|other| is_same(field, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

#[cfg(test)]
#[allow(dead_code, reason = "what is read and not used is what these types are about")]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::{BTreeMap, HashSet};

    fn refused<T: Serialize + DeserializeOwned>(value: &T) -> String {
        to_json("a", "position", value, &mut None).unwrap_err().to_string()
    }

    #[derive(Serialize, Deserialize)]
    struct Lossy {
        offset: u64,
        #[serde(skip_serializing)]
        line: u64,
    }

    #[derive(Serialize, Deserialize)]
    struct WithDefault {
        offset: u64,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        line: Option<u64>,
        #[serde(skip)]
        cache: Vec<u8>,
        seen: HashSet<u32>,
    }

    #[derive(Serialize, Deserialize)]
    struct NotRead {
        #[serde(skip_deserializing)]
        offset: u64,
    }

    #[test]
    fn a_position_that_cannot_be_read_again_is_refused_with_its_type_and_what_to_do() {
        let lossy = Lossy { offset: 1, line: 2 };
        let text = refused(&lossy);
        assert_eq!(lossy.line, 2);
        for part in ["split a: its position", "Lossy", "missing field `line`", "#[serde(default)]"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(refused(&NotRead { offset: 1 }).contains("comes back as"));
        assert!(refused(&f64::NAN).contains("NaN"));
        assert!(refused(&BTreeMap::from([((1, 2), 3)])).contains("key must be a string"));
    }

    #[test]
    fn a_position_with_left_out_fields_that_have_a_default_is_stored() {
        let seen = (0..100).collect();
        let value = WithDefault { offset: 1, line: None, cache: vec![1], seen };
        let json = to_json("a", "position", &value, &mut None).unwrap();
        assert_eq!((json["offset"].as_u64(), value.cache.len()), (Some(1), 1));
    }

    #[test]
    fn only_a_value_of_another_shape_is_read_back() {
        let mut shape = None;
        to_json("a", "position", &Some(1.0), &mut shape).unwrap();
        let first = shape;
        to_json("a", "position", &Some(2.0), &mut shape).unwrap();
        assert_eq!(shape, first);
        to_json("a", "position", &None::<f64>, &mut shape).unwrap();
        assert_ne!(shape, first);
        assert!(to_json("a", "position", &f64::NAN, &mut first.clone()).is_err());
    }
}
