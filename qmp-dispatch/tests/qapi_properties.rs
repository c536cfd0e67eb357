// SPDX-License-Identifier: MIT OR Apache-2.0
//! For any type: values that have it are accepted, values with one mistake are not.

mod shapes;

use proptest::prelude::*;
use proptest::sample::Index;
use qmp_dispatch::qapi::arguments_of;
use qmp_proto::Value;
use schemars::JsonSchema;
use serde::Deserialize;

use shapes::{Field, INTEGERS, Shape, arguments, root};

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
    #[serde(flatten)]
    flattened: Flattened,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Flattened {
    m10: u32,
    m11: Option<Vec<u16>>,
    m12: Option<bool>,
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
#[serde(untagged)]
#[allow(dead_code)]
enum Alternate {
    Object(Inner),
    Array(Vec<Choice>),
    Choice(Choice),
}

/// The same, with so many levels of recursion.
fn catalogue(depth: usize) -> Shape {
    let integer = |name: &str| {
        let &(format, min, max) = INTEGERS.iter().find(|(format, ..)| *format == name).unwrap();
        Shape::Int { format, min, max }
    };
    let list = |shape| Shape::Array(Box::new(shape));
    let one = |shape| Field { optional: false, shape };
    let maybe = |shape| Field { optional: true, shape };
    let inner = || Shape::Struct(vec![one(Shape::Bool), maybe(integer("uint8"))]);
    let alternate = || Shape::Alternate(vec![inner(), list(Shape::Enum(2)), Shape::Enum(2)]);
    let cases = || {
        vec![
            vec![],
            vec![one(integer("int64")), maybe(Shape::Number)],
            vec![one(list(integer("uint64"))), maybe(alternate())],
        ]
    };
    let mut fields = vec![
        one(Shape::Str),
        maybe(integer("int8")),
        maybe(integer("uint64")),
        one(Shape::Number),
        maybe(Shape::Enum(2)),
        one(list(inner())),
        one(Shape::Union(vec![], cases())),
        maybe(alternate()),
        one(Shape::Any),
    ];
    // Where recursion ends, the member is a mistake.
    fields.push(match depth {
        0 => maybe(Shape::Struct(vec![])),
        _ => maybe(catalogue(depth - 1)),
    });
    fields.extend([one(integer("uint32")), maybe(list(integer("uint16"))), maybe(Shape::Bool)]);
    Shape::Union(fields, cases())
}

proptest! {
    /// The check and serde agree.
    #[test]
    fn what_is_accepted_can_be_deserialized(
        choices in prop::collection::vec(any::<Index>(), 100),
        mistake in any::<Index>(),
    ) {
        let shape = catalogue(1);
        let arguments = arguments_of::<Catalogue>().unwrap();
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        let mistakes = shape.mistakes(&value);
        for value in [&value, mistake.get(&mistakes)] {
            let Some(object) = value.as_object() else { continue };
            let checked = arguments.check(object);
            let decoded = arguments.decode::<Catalogue>(object.clone());
            prop_assert_eq!(checked.err(), decoded.err(), "{}", value);
        }
    }

    #[test]
    fn a_rust_type_is_the_shape_that_it_seems(
        choices in prop::collection::vec(any::<Index>(), 100),
    ) {
        let shape = catalogue(2);
        let arguments = arguments_of::<Catalogue>().unwrap();
        let mut choices = choices.iter().cycle();
        let value = shape.value(&mut |n| choices.next().unwrap().index(n));
        let bottom = |value: &Value| value.to_string().contains("m9\": {}");
        prop_assume!(!bottom(&value));
        prop_assert_eq!(arguments.check(value.as_object().unwrap()), Ok(()));
        for mistake in shape.mistakes(&value) {
            if let Some(object) = mistake.as_object() {
                prop_assert!(arguments.check(object).is_err(), "{mistake}");
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
            if let Some(object) = mistake.as_object() {
                prop_assert!(arguments.check(object).is_err(), "{mistake}");
            }
        }
    }
}
