use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::fmt::Debug;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
enum Shape {
    Point,
    Named(String),
    Line(i32, Option<u8>),
    Area { left: i64, letters: Vec<char> },
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct Wrapped(i16);

/// Everything that has an order.
type Everything = ((bool, i8, u16, i128), (String, Vec<Vec<u8>>), (Option<Wrapped>, Shape, [u32; 2], ()));

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Point),
        "[a\0b]{0,3}".prop_map(Shape::Named),
        (-2..2, any::<Option<u8>>()).prop_map(|(a, b)| Shape::Line(a, b)),
        (any::<i64>(), prop::collection::vec(any::<char>(), 0..3))
            .prop_map(|(left, letters)| Shape::Area { left, letters }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers = (any::<bool>(), -2..2i8, any::<u16>(), any::<i128>());
    let texts = ("[a\0\u{1}\u{ff}]{0,4}", prop::collection::vec(prop::collection::vec(0..3u8, 0..3), 0..3));
    let rest = (any::<Option<i16>>().prop_map(|w| w.map(Wrapped)), shape(), any::<[u32; 2]>(), Just(()));
    (numbers, texts, rest)
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(value, &mut bytes).expect("it has an order");
    bytes
}

fn keeps_order<T: Serialize + DeserializeOwned + Ord + Debug>(a: &T, b: &T) {
    let (one, other) = (encoded(a), encoded(b));
    assert_eq!(one.cmp(&other), a.cmp(b), "{a:?} {b:?} {one:?} {other:?}");
    let mut both = one.clone();
    both.extend_from_slice(&other);
    let (first, rest) = take::<T>(&both).expect("it was encoded");
    let (second, rest) = take::<T>(rest).expect("it was encoded");
    assert_eq!((&first, &second, rest), (a, b, &[][..]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn bytes_are_in_the_order_of_the_values_and_read_back(
        a in everything(), b in everything(), shapes in (shape(), shape()), numbers: (i64, i64), texts: (String, String),
    ) {
        keeps_order(&a, &b);
        // What differs in one field alone.
        let near = (a.0, (b.1.0.clone(), a.1.1.clone()), a.2.clone());
        keeps_order(&a, &near);
        let near = (a.0, a.1.clone(), b.2.clone());
        keeps_order(&a, &near);
        keeps_order(&shapes.0, &shapes.1);
        keeps_order(&numbers.0, &numbers.1);
        keeps_order(&texts.0, &texts.1);
    }

    #[test]
    fn bytes_that_were_never_written_are_an_error_or_a_value_and_never_a_panic(bytes: Vec<u8>) {
        if let Ok((value, rest)) = take::<Everything>(&bytes) {
            prop_assert_eq!(&[&encoded(&value)[..], rest].concat(), &bytes);
        }
    }
}

#[test]
fn types_without_an_order_are_refused_and_leave_the_buffer_as_it_was() {
    let mut bytes = vec![7];
    let float = append(&(1, 2.5), &mut bytes).expect_err("a float").to_string();
    assert!(float.contains("floating-point numbers"), "{float}");
    let map = append(&std::collections::BTreeMap::from([(1, 2)]), &mut bytes).expect_err("a map").to_string();
    assert!(map.contains("maps"), "{map}");
    assert_eq!(bytes, [7]);
    assert!(take::<f32>(&[0; 4]).is_err());
}
