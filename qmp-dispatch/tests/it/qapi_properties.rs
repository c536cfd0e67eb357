// SPDX-License-Identifier: MIT OR Apache-2.0
//! For any type: values that have it are accepted, values with one mistake are not.

use std::num::NonZeroI32;

use proptest::prelude::*;
use proptest::sample::Index;
use qmp_dispatch::qapi::arguments_of;
use qmp_proto::from_object;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::shapes::{Field, INTEGERS, Presence, Shape, arguments, root};

/// A Rust type of every shape, with the names that [`Shape`] gives.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Catalogue {
    m0: String,
    m1: Option<i8>,
    #[serde(default)]
    m2: u64,
    m3: f64,
    m4: Option<Choice>,
    m5: Vec<Inner>,
    m6: Tagged,
    m7: Option<Alternate>,
    m8: serde_json::Value,
    m9: Option<Box<Catalogue>>,
    m10: Option<char>,
    #[schemars(range(min = 2, max = 9))]
    m11: u8,
    #[serde(default)]
    m12: Vec<NonZeroI32>,
    m13: Adjacent,
    #[serde(flatten)]
    flattened: Flattened,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Flattened {
    m14: u32,
    m15: Option<Vec<u16>>,
    m16: Option<bool>,
    #[serde(flatten)]
    tagged: Tagged,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Choice {
    V0,
    /// Documented.
    V1,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Inner {
    m0: bool,
    m1: Option<u8>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "tag", rename_all = "lowercase")]
#[allow(dead_code)]
enum Tagged {
    V0,
    V1 { c0: i64, c1: Option<f32> },
    V2(Branch),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Branch {
    c0: Vec<u64>,
    c1: Option<Alternate>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "tag", content = "c0", rename_all = "lowercase")]
#[allow(dead_code)]
enum Adjacent {
    V0,
    V1(Vec<bool>),
    V2 { m0: (), m1: Option<i16> },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum Alternate {
    Object(Inner),
    Array(Vec<Choice>),
    Choice(Choice),
}

/// The same, with this many levels of recursion. `u64` is the shape of its members of that type.
fn catalogue(depth: usize, u64: &Shape) -> Shape {
    let integer = |name: &str| {
        let &(format, min, max) = INTEGERS.iter().find(|(format, ..)| *format == name).unwrap();
        Shape::Int { format, min, max }
    };
    let list = |shape| Shape::Array(Box::new(shape));
    let one = |shape| Field { presence: Presence::Required, shape };
    let maybe = |shape| Field { presence: Presence::Optional, shape };
    let with_default = |shape| Field { presence: Presence::Default, shape };
    let inner = || Shape::Struct(vec![one(Shape::Bool), maybe(integer("uint8"))]);
    let alternate = || Shape::Alternate(vec![inner(), list(Shape::Enum(2)), Shape::Enum(2)]);
    let cases = || {
        vec![
            vec![],
            vec![one(integer("int64")), maybe(Shape::Number)],
            vec![one(list(u64.clone())), maybe(alternate())],
        ]
    };
    let adjacent_cases = || {
        let content = Shape::Struct(vec![one(Shape::Null), maybe(integer("int16"))]);
        vec![vec![], vec![one(list(Shape::Bool))], vec![one(content)]]
    };
    let mut fields = vec![
        one(Shape::Str),
        maybe(integer("int8")),
        with_default(u64.clone()),
        one(Shape::Number),
        maybe(Shape::Enum(2)),
        one(list(inner())),
        one(Shape::Union(vec![], cases())),
        maybe(alternate()),
        one(Shape::Any),
    ];
    fields.push(match depth {
        0 => Field { presence: Presence::Absent, shape: Shape::Any },
        _ => maybe(catalogue(depth - 1, u64)),
    });
    fields.extend([
        maybe(Shape::Char),
        one(Shape::Range(2, 9)),
        with_default(list(Shape::NonZero)),
        one(Shape::Union(vec![], adjacent_cases())),
    ]);
    fields.extend([one(integer("uint32")), maybe(list(integer("uint16"))), maybe(Shape::Bool)]);
    Shape::Union(fields, cases())
}

/// With negative values, which stand for large ones.
const U64: Shape = {
    let (format, min, max) = INTEGERS[7];
    Shape::Int { format, min, max }
};

proptest! {
    /// The check and serde agree.
    #[test]
    fn what_is_accepted_can_be_deserialized(
        choices in prop::collection::vec(any::<Index>(), 100),
        mistake in any::<Index>(),
    ) {
        let shape = catalogue(1, &U64);
        let arguments = arguments_of::<Catalogue>().unwrap();
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        let mistakes = shape.mistakes(&value);
        for value in [&value, &mistake.get(&mistakes).value] {
            let Some(object) = value.as_object() else { continue };
            let checked = arguments.check(object);
            let decoded = arguments.decode::<Catalogue>(object.clone());
            prop_assert_eq!(checked.err(), decoded.err(), "{}", value);
        }
    }

    /// serde by itself refuses the same, except for what only QAPI forbids: other members, null in place of a member
    /// that is absent, an object in place of null, and numbers beyond `schemars(range)`.
    #[test]
    fn serde_allows_only_what_qapi_alone_forbids(
        choices in prop::collection::vec(any::<Index>(), 100),
    ) {
        let shape = catalogue(1, &Shape::Unsigned);
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        for mistake in shape.mistakes(&value) {
            let Some(object) = mistake.value.as_object() else { continue };
            let is_allowed = from_object::<Catalogue>(object.clone()).is_ok();
            prop_assert_eq!(is_allowed, mistake.is_allowed_by_serde, "{}", mistake.value);
        }
    }

    #[test]
    fn a_rust_type_is_the_shape_that_it_seems(
        choices in prop::collection::vec(any::<Index>(), 100),
    ) {
        let shape = catalogue(2, &U64);
        let arguments = arguments_of::<Catalogue>().unwrap();
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        prop_assert_eq!(arguments.check(value.as_object().unwrap()), Ok(()));
        for mistake in shape.mistakes(&value) {
            if let Some(object) = mistake.value.as_object() {
                prop_assert!(arguments.check(object).is_err(), "{}", mistake.value);
            }
        }
    }
}

proptest! {
    #[test]
    fn values_of_the_type_are_accepted(
        shape in root(),
        choices in prop::collection::vec(any::<Index>(), 50),
    ) {
        let arguments = arguments(&shape);
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        prop_assert_eq!(arguments.check(value.as_object().unwrap()), Ok(()));
    }

    #[test]
    fn values_with_one_mistake_are_refused(
        shape in root(),
        choices in prop::collection::vec(any::<Index>(), 50),
    ) {
        let arguments = arguments(&shape);
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        for mistake in shape.mistakes(&value) {
            if let Some(object) = mistake.value.as_object() {
                prop_assert!(arguments.check(object).is_err(), "{}", mistake.value);
            }
        }
    }
}
