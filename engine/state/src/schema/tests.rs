//! What the text says of types of every kind, and that it changes whenever what is stored would be read as
//! something else.

use super::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;

#[derive(Clone, Serialize, Deserialize)]
struct Total {
    count: u64,
    kind: Kind,
    parts: Vec<Option<Unit>>,
    names: BTreeMap<String, [u8; 4]>,
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

/// The text without its first two lines, for a value with a key and a namespace that do not matter.
fn value<V: StateValue>() -> String {
    let text = schema_of::<u64, (), V>();
    text.strip_prefix("key: u64\nnamespace: ()\n").expect("the key comes first").to_owned()
}

#[test]
fn structs_and_enums_are_written_with_their_fields_and_all_variants() {
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
enum Unit
  0 Metre
  1 Second
";
    assert_eq!(schema_of::<String, i64, Total>(), expected);
}

/// The texts for values that hold an enum of the given variants, in containers of every kind.
macro_rules! held {
    ($($variants:tt)*) => {{
        #[derive(Serialize, Deserialize)]
        enum Side {
            $($variants)*
        }
        #[derive(Serialize, Deserialize)]
        struct Trade {
            before: u8,
            side: Side,
            after: String,
        }
        #[derive(Serialize, Deserialize)]
        enum Event {
            Nothing,
            Traded(Vec<Trade>),
            Closed { side: Option<Side> },
        }
        [
            value::<Side>(),
            value::<Option<Side>>(),
            value::<Vec<Side>>(),
            value::<HashMap<String, Side>>(),
            value::<Vec<Option<Side>>>(),
            value::<Vec<Trade>>(),
            value::<BTreeMap<u8, Vec<Option<(Trade, bool)>>>>(),
            value::<Option<Option<Box<[Event]>>>>(),
            value::<(Event, Option<Side>)>(),
        ]
    }};
}

#[test]
fn a_changed_variant_changes_the_text_wherever_the_enum_is_held() {
    let old = held!(Buy, Sell(u32), Swap { with: u64 });
    let others = [
        ("added at the end", held!(Buy, Sell(u32), Swap { with: u64 }, Hold)),
        ("added in front", held!(Hold, Buy, Sell(u32), Swap { with: u64 })),
        ("removed", held!(Buy, Swap { with: u64 })),
        ("renamed", held!(Bought, Sell(u32), Swap { with: u64 })),
        ("swapped", held!(Sell(u32), Buy, Swap { with: u64 })),
        ("another payload in the first", held!(Buy(u8), Sell(u32), Swap { with: u64 })),
        ("another payload in the second", held!(Buy, Sell(i32), Swap { with: u64 })),
        ("another payload deep in the second", held!(Buy, Sell(Vec<Option<u32>>), Swap { with: u64 })),
        ("another payload in the last", held!(Buy, Sell(u32), Swap { with: u64, at: u64 })),
    ];
    assert_eq!(old, held!(Buy, Sell(u32), Swap { with: u64 }));
    for (what, new) in others {
        for (old, new) in old.iter().zip(&new) {
            assert_ne!(old, new, "{what}");
            assert!(!new.contains("unknown"), "{what}: {new}");
        }
    }
}

#[test]
fn units_that_swap_places_in_a_list_change_the_text() {
    let [_, _, old, ..] = held!(Buy, Sell);
    let [_, _, new, ..] = held!(Sell, Buy);
    assert_eq!(old, "value: [Side]\nenum Side\n  0 Buy\n  1 Sell\n");
    assert_eq!(new, "value: [Side]\nenum Side\n  0 Sell\n  1 Buy\n");
}

#[derive(Serialize, Deserialize)]
struct Node {
    item: Option<Unit>,
    next: Option<Box<Node>>,
}

#[derive(Serialize, Deserialize)]
struct Tree {
    branches: Vec<Tree>,
    named: HashMap<String, Tree>,
    unit: Unit,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Bare(Vec<Bare>);

#[derive(Serialize, Deserialize)]
enum Expression {
    Add(Box<Expression>, Box<Expression>),
    Call { name: String, arguments: Vec<Expression> },
    Not(Option<Box<Expression>>),
    Measured(Unit, Box<Statement>),
    Number(f64),
}

#[derive(Serialize, Deserialize)]
enum Statement {
    Evaluate(Expression),
    Block(Vec<Statement>),
}

#[test]
fn recursive_types_end_and_are_known_entirely() {
    let unit = "enum Unit\n  0 Metre\n  1 Second\n";
    let node = "value: Node\nstruct Node\n  item: Option<Unit>\n  next: Option<Node>\n";
    assert_eq!(value::<Node>(), format!("{node}{unit}"));
    let tree = "value: Tree\nstruct Tree\n  branches: [Tree]\n  named: {str: Tree}\n  unit: Unit\n";
    assert_eq!(value::<Tree>(), format!("{tree}{unit}"));
    assert_eq!(value::<Bare>(), "value: [itself]\n");
    let expected = "\
enum Expression
  0 Add(Expression, Expression)
  1 Call
    name: str
    arguments: [Expression]
  2 Not(Option<Expression>)
  3 Measured(Unit, Statement)
  4 Number(f64)
enum Statement
  0 Evaluate(Expression)
  1 Block([Statement])
";
    assert_eq!(value::<Expression>(), format!("value: Expression\n{expected}{unit}"));
    assert_eq!(value::<Option<Statement>>(), format!("value: Option<Statement>\n{expected}{unit}"));
}

/// Each variant but the last holds two more of the enum.
#[derive(Serialize, Deserialize)]
enum Bushy {
    A(Box<Bushy>, Box<Bushy>),
    B(Box<Bushy>, Box<Bushy>),
    C(Box<Bushy>, Box<Bushy>),
    D(Box<Bushy>, Box<Bushy>),
    E(Box<Bushy>, Box<Bushy>),
    F(Box<Bushy>, Box<Bushy>),
    G(Box<Bushy>, Box<Bushy>),
    H(Box<Bushy>, Box<Bushy>),
    I(Box<Bushy>, Box<Bushy>),
    J(Box<Bushy>, Box<Bushy>),
    K(Box<Bushy>, Box<Bushy>),
    L(Box<Bushy>, Box<Bushy>),
    M(Box<Bushy>, Box<Bushy>),
    N(Box<Bushy>, Box<Bushy>),
    O(Box<Bushy>, Box<Bushy>),
    P(Box<Bushy>, Box<Bushy>),
    Q(Box<Bushy>, Box<Bushy>),
    R(Box<Bushy>, Box<Bushy>),
    S(Box<Bushy>, Box<Bushy>),
    T(Box<Bushy>, Box<Bushy>),
    U(Vec<(Bushy, Bushy)>, Unit),
    Leaf(Unit),
}

#[test]
fn an_enum_with_many_branches_takes_no_more_time_than_it_has_variants() {
    let text = value::<Bushy>();
    assert!(text.contains("\n  19 T(Bushy, Bushy)\n  20 U([[Bushy; 2]], Unit)\n  21 Leaf(Unit)\n"), "{text}");
    assert!(!text.contains("unknown"), "{text}");
}

/// There is no value of this type.
#[derive(Serialize, Deserialize)]
struct Endless {
    next: Box<Endless>,
}

#[test]
fn a_type_without_values_ends_too() {
    assert!(value::<Endless>().starts_with("value: "));
}

mod one {
    #[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
    pub struct Id {
        pub raw: u64,
    }
}

mod other {
    #[derive(Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
    pub struct Id {
        pub name: String,
    }
}

mod third {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Id {
        pub raw: u64,
    }
}

#[derive(Serialize, Deserialize)]
struct Pair<T> {
    left: T,
    right: T,
}

#[test]
fn types_of_one_name_are_told_apart_by_what_they_are_made_of() {
    let expected = "\
key: Id
namespace: ()
value: [Id#2]
struct Id
  raw: u64
struct Id#2
  name: str
";
    assert_eq!(schema_of::<one::Id, (), Vec<other::Id>>(), expected);
    let same = "key: Id\nnamespace: ()\nvalue: Id\nstruct Id\n  raw: u64\n";
    assert_eq!(schema_of::<one::Id, (), third::Id>(), same);
}

#[test]
fn the_parameters_of_generic_types_are_told_apart() {
    type Pairs = (Pair<u8>, Pair<one::Id>, Pair<other::Id>, Pair<third::Id>, Pair<u8>);
    let expected = "\
value: (Pair, Pair#2, Pair#3, Pair#2, Pair)
struct Id
  raw: u64
struct Id#2
  name: str
struct Pair
  left: u8
  right: u8
struct Pair#2
  left: Id
  right: Id
struct Pair#3
  left: Id#2
  right: Id#2
";
    assert_eq!(value::<Pairs>(), expected);
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

#[derive(Serialize, Deserialize)]
struct Followed {
    before: Option<Unit>,
    picky: Picky,
    after: Kind,
}

#[derive(Serialize, Deserialize)]
struct Enclosed {
    maybe: Option<Picky>,
    all: Vec<Picky>,
    deep: Option<Followed>,
    after: Vec<Unit>,
}

#[derive(Serialize, Deserialize)]
enum Choosy {
    Plain,
    Picky(Picky, Unit),
    After(Unit),
}

const UNITS: &str = "enum Unit\n  0 Metre\n  1 Second\n";
const SEVEN: &str = "staunch_state::schema::tests::Picky (u8 of certain values)";

#[test]
fn a_type_that_accepts_no_sample_is_named_and_what_follows_it_is_unknown() {
    let followed =
        format!("struct Followed\n  before: Option<Unit>\n  picky: {SEVEN}\n  after: unknown\n{UNITS}");
    assert_eq!(value::<Picky>(), format!("value: {SEVEN}\n"));
    assert_eq!(value::<Followed>(), format!("value: Followed\n{followed}"));
}

#[test]
fn what_is_around_a_type_that_accepts_no_sample_is_known() {
    // Alone in an option or list it is known by what it asks for: there is nothing else to find out.
    let enclosed =
        "struct Enclosed\n  maybe: Option<u8>\n  all: [u8]\n  deep: Option<Followed>\n  after: [Unit]\n";
    let followed = format!("struct Followed\n  before: Option<Unit>\n  picky: {SEVEN}\n  after: unknown\n");
    assert_eq!(value::<Enclosed>(), format!("value: Enclosed\n{enclosed}{followed}{UNITS}"));
    let choosy = format!("enum Choosy\n  0 Plain\n  1 Picky({SEVEN}, unknown)\n  2 After(Unit)\n");
    assert_eq!(value::<Choosy>(), format!("value: Choosy\n{choosy}{UNITS}"));
}

/// A point in time, as text.
#[derive(Serialize)]
struct Moment(String);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parses = text.split_once('T').is_some_and(|(date, _)| date.split('-').count() == 3);
        if parses { Ok(Self(text)) } else { Err(serde::de::Error::custom("not a point in time")) }
    }
}

/// A list with something in it.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "Vec<Unit>")]
struct Filled(Vec<Unit>);

impl TryFrom<Vec<Unit>> for Filled {
    type Error = &'static str;

    fn try_from(list: Vec<Unit>) -> Result<Self, Self::Error> {
        if list.is_empty() { Err("empty") } else { Ok(Self(list)) }
    }
}

/// A year and a day of it, of which only few are accepted.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "(u16, u16, bool)")]
struct Day(u16, u16, bool);

impl TryFrom<(u16, u16, bool)> for Day {
    type Error = &'static str;

    fn try_from((year, day, checked): (u16, u16, bool)) -> Result<Self, Self::Error> {
        if year == 2000 && day > 0 && checked { Ok(Self(year, day, checked)) } else { Err("no day") }
    }
}

#[derive(Serialize, Deserialize)]
struct Seen {
    at: Moment,
    days: Vec<Day>,
    units: Filled,
    size: NonZeroU32,
    from: IpAddr,
    after: Kind,
}

#[test]
fn types_that_accept_one_of_the_samples_hide_nothing() {
    let text = value::<Seen>();
    let expected = "\
struct Seen
  at: str
  days: [(u16, u16, bool)]
  units: [Unit]
  size: u32
  from: IpAddr
  after: Kind
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("enum IpAddr\n  0 V4([u8; 4])\n  1 V6([u8; 16])\n"), "{text}");
    assert!(text.contains("enum Kind\n  0 Plain\n  1 Weighted(f64)\n  2 Named\n"), "{text}");
    assert!(text.ends_with(UNITS), "{text}");
}

#[derive(Serialize, Deserialize)]
struct Renamed {
    #[serde(alias = "was")]
    now: u8,
    side: Vec<Moved>,
}

#[derive(Serialize, Deserialize)]
enum Moved {
    #[serde(alias = "West")]
    Left,
    Right(u16),
}

#[test]
fn with_aliases_fields_and_variants_are_numbered() {
    let text = value::<Renamed>();
    assert!(text.contains("\n  0: u8\n  1: [Moved]\n"), "{text}");
    assert!(text.contains("\n  0\n  1(u16)\n"), "{text}");
}

#[test]
fn the_difference_shows_what_went_and_what_came() {
    let old = "key: u64\nstruct A\n  x: u32\n  y: u8\n";
    let new = "key: u64\nstruct A\n  x: u64\n  y: u8\n  z: bool\n";
    let expected = "  key: u64\n  struct A\n-   x: u32\n+   x: u64\n    y: u8\n+   z: bool\n";
    assert_eq!(schema_diff(old, new), expected);
}
