// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of all shapes, good values of them, and values with one mistake.

use std::borrow::Cow;
use std::cell::RefCell;

use proptest::prelude::*;
use qmp_dispatch::qapi::{Arguments, arguments_of};
use qmp_proto::{Object, Value};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde_json::{Value as Json, json};

/// The shape of a type.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Str,
    /// A string of one character.
    Char,
    Int {
        format: &'static str,
        min: i128,
        max: i128,
    },
    /// Of 64 bits, with values that are not negative, as serde has them. (QAPI takes negative ones for large ones.)
    Unsigned,
    /// Of 8 bits, between these.
    Range(u8, u8),
    /// Of 32 bits, and not zero.
    NonZero,
    Number,
    Bool,
    Null,
    Any,
    Enum(usize),
    Array(Box<Shape>),
    Struct(Vec<Field>),
    /// Members of its own, and those of each case.
    Union(Vec<Field>, Vec<Vec<Field>>),
    /// Shapes of different JSON types.
    Alternate(Vec<Shape>),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) presence: Presence,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    /// An `Option`: serde takes null for none.
    Optional,
    /// Has a default: serde does not.
    Default,
    /// Never there, so that recursion ends.
    Absent,
}

/// A value that differs from a good one in one place, and is bad.
#[derive(Clone, Debug)]
pub(crate) struct Mistake {
    pub(crate) value: Value,
    /// Whether QAPI alone forbids it, and serde does not.
    pub(crate) is_allowed_by_serde: bool,
}

impl Mistake {
    /// The same mistake in a value around it.
    fn within(self, around: impl FnOnce(Value) -> Value) -> Self {
        Self { value: around(self.value), ..self }
    }
}

fn refused<const N: usize>(values: [Value; N]) -> Vec<Mistake> {
    let mistake = |value| Mistake { value, is_allowed_by_serde: false };
    values.map(mistake).into()
}

fn allowed_by_serde(value: Value) -> Mistake {
    Mistake { value, is_allowed_by_serde: true }
}

pub(crate) const INTEGERS: [(&str, i128, i128); 8] = [
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("int64", i64::MIN as i128, i64::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    // Negative numbers stand for large ones.
    ("uint64", i64::MIN as i128, u64::MAX as i128),
];

pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Str),
        Just(Shape::Char),
        (1..10u8, 10..20u8).prop_map(|(min, max)| Shape::Range(min, max)),
        Just(Shape::NonZero),
        (0..INTEGERS.len()).prop_map(|index| {
            let (format, min, max) = INTEGERS[index];
            Shape::Int { format, min, max }
        }),
        Just(Shape::Number),
        Just(Shape::Bool),
        Just(Shape::Null),
        Just(Shape::Any),
        (1..5usize).prop_map(Shape::Enum),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let fields = || prop::collection::vec(field(inner.clone()), 0..5);
        prop_oneof![
            inner.clone().prop_map(|shape| Shape::Array(Box::new(shape))),
            fields().prop_map(Shape::Struct),
            (fields(), prop::collection::vec(fields(), 1..4))
                .prop_map(|(base, cases)| Shape::Union(base, cases)),
            (fields(), inner.clone()).prop_map(|(fields, element)| {
                Shape::Alternate(vec![
                    Shape::Struct(fields),
                    Shape::Array(Box::new(element)),
                    Shape::Enum(2),
                ])
            }),
        ]
    })
}

fn field(shape: impl Strategy<Value = Shape>) -> impl Strategy<Value = Field> {
    let presence = prop_oneof![Just(Presence::Required), Just(Presence::Optional)];
    (presence, shape).prop_map(|(presence, shape)| Field { presence, shape })
}

/// A type that can be that of arguments.
pub(crate) fn root() -> impl Strategy<Value = Shape> {
    shape().prop_map(|shape| match shape {
        Shape::Struct(_) | Shape::Union(..) => shape,
        shape => Shape::Struct(vec![Field { presence: Presence::Required, shape }]),
    })
}

impl Shape {
    /// The schema that schemars would make.
    pub(crate) fn schema(&self) -> Json {
        match self {
            Shape::Str => json!({"type": "string"}),
            Shape::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
            Shape::Range(min, max) => {
                json!({"type": "integer", "format": "uint8", "minimum": min, "maximum": max})
            }
            Shape::NonZero => json!({"type": "integer", "format": "int32", "not": {"const": 0}}),
            Shape::Int { format, .. } => json!({"type": "integer", "format": format}),
            Shape::Unsigned => json!({"type": "integer", "format": "uint64"}),
            Shape::Number => json!({"type": "number", "format": "double"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Null => json!({"type": "null"}),
            Shape::Any => json!(true),
            Shape::Enum(count) => {
                json!({"type": "string", "enum": (0..*count).map(value_name).collect::<Vec<_>>()})
            }
            Shape::Array(element) => json!({"type": "array", "items": element.schema()}),
            Shape::Struct(fields) => struct_schema("m", fields),
            Shape::Union(base, cases) => {
                let mut schema = struct_schema("m", base);
                let variant = |(index, fields): (usize, &Vec<Field>)| {
                    let mut schema = struct_schema("c", fields);
                    schema["properties"]["tag"] =
                        json!({"type": "string", "const": value_name(index)});
                    schema
                };
                schema["oneOf"] = cases.iter().enumerate().map(variant).collect();
                schema
            }
            Shape::Alternate(branches) => {
                json!({"anyOf": branches.iter().map(Shape::schema).collect::<Json>()})
            }
        }
    }

    /// A value of this shape. `choose` is asked for one of so many.
    pub(crate) fn value(&self, choose: &mut dyn FnMut(usize) -> usize) -> Value {
        match self {
            Shape::Str => ["", "x", "é"][choose(3)].into(),
            Shape::Char => ["x", "é"][choose(2)].into(),
            Shape::Range(min, max) => integer([*min, *max][choose(2)].into()),
            Shape::NonZero => integer([-1, 1, i32::MIN, i32::MAX][choose(4)].into()),
            Shape::Int { min, max, .. } => {
                integer([*min, (*min).max(-1), 0, 1, *max - 1, *max][choose(6)])
            }
            Shape::Unsigned => [0.into(), 1.into(), Value::from(u64::MAX)][choose(3)].clone(),
            Shape::Number => [1.into(), 0.5.into(), Value::from(u64::MAX)][choose(3)].clone(),
            Shape::Bool => Value::from(choose(2) == 0),
            Shape::Null => Value::Null,
            Shape::Any => [Value::Null, 1.into(), Object::new().into()][choose(3)].clone(),
            Shape::Enum(count) => value_name(choose(*count)).into(),
            Shape::Array(element) => {
                Value::Array((0..choose(3)).map(|_| element.value(choose)).collect())
            }
            Shape::Struct(fields) => {
                let mut object = Object::new();
                add_values("m", fields, &mut object, choose);
                object.into()
            }
            Shape::Union(base, cases) => {
                let mut object = Object::new();
                let case = choose(cases.len());
                add_values("c", &cases[case], &mut object, choose);
                object.insert("tag", value_name(case));
                add_values("m", base, &mut object, choose);
                object.into()
            }
            Shape::Alternate(branches) => branches[choose(branches.len())].value(choose),
        }
    }

    /// Values that differ from a good one in one place, and are bad.
    pub(crate) fn mistakes(&self, value: &Value) -> Vec<Mistake> {
        match (self, value) {
            (Shape::Any, _) => Vec::new(),
            (Shape::Str, _) => refused([Value::Null, 1.into(), Value::Array(Vec::new())]),
            (Shape::Char, _) => refused([Value::Null, 1.into(), "".into(), "xy".into()]),
            (Shape::Range(min, max), _) => {
                let beyond = [i128::from(*min) - 1, i128::from(*max) + 1];
                let mut mistakes = refused(["1".into()]);
                mistakes.extend(beyond.map(integer).map(allowed_by_serde));
                mistakes
            }
            (Shape::NonZero, _) => {
                refused([0.into(), integer(i128::from(i32::MAX) + 1), Value::Null])
            }
            (Shape::Int { min, max, .. }, _) => {
                let mut mistakes = refused([Value::Null, 1.0.into(), "1".into(), true.into()]);
                mistakes.extend(refused([*min - 1, *max + 1].map(integer)));
                mistakes
            }
            (Shape::Unsigned, _) => {
                let beyond = integer(i128::from(u64::MAX) + 1);
                refused([Value::Null, 1.0.into(), "1".into(), true.into(), beyond])
            }
            (Shape::Number, _) => refused([Value::Null, "1".into(), false.into()]),
            (Shape::Bool, _) => refused([Value::Null, 0.into(), "true".into()]),
            (Shape::Null, _) => {
                let mut mistakes = refused([0.into(), "null".into()]);
                mistakes.push(allowed_by_serde(Object::new().into()));
                mistakes
            }
            (Shape::Enum(count), _) => {
                let unknown = value_name(*count);
                refused([Value::Null, 0.into(), "".into(), unknown.into(), "V0".into()])
            }
            (Shape::Array(element), Value::Array(array)) => {
                let mut mistakes = refused([Value::Null, Object::new().into()]);
                for (index, value) in array.iter().enumerate() {
                    mistakes.extend(element.mistakes(value).into_iter().map(|mistake| {
                        mistake.within(|mistake| {
                            let mut array = array.clone();
                            array[index] = mistake;
                            Value::Array(array)
                        })
                    }));
                }
                mistakes
            }
            (Shape::Struct(fields), Value::Object(object)) => {
                let mut mistakes = refused([Value::Null, Value::Array(vec![value.clone()])]);
                mistakes.push(allowed_by_serde(with(object, "unexpected", Value::Null)));
                mistakes.extend(field_mistakes("m", fields, object));
                mistakes
            }
            (Shape::Union(base, cases), Value::Object(object)) => {
                let case = (0..cases.len())
                    .find(|case| object.get("tag") == Some(&value_name(*case).into()))
                    .unwrap();
                let mut mistakes = refused([
                    Value::Null,
                    without(object, "tag"),
                    with(object, "tag", Value::Null),
                    with(object, "tag", value_name(cases.len())),
                ]);
                let unexpected = format!("c{}", cases[case].len());
                // Null, because the content of a unit variant must be that.
                mistakes.push(allowed_by_serde(with(object, &unexpected, Value::Null)));
                mistakes.extend(field_mistakes("m", base, object));
                mistakes.extend(field_mistakes("c", &cases[case], object));
                mistakes
            }
            (Shape::Alternate(branches), value) => {
                let fits = |shape: &&Shape| {
                    matches!(
                        (shape, value),
                        (Shape::Struct(_), Value::Object(_))
                            | (Shape::Array(_), Value::Array(_))
                            | (Shape::Enum(_), Value::String(_))
                    )
                };
                // What is wrong for one branch may be right for another.
                let is_same_type = |mistake: &Mistake| {
                    std::mem::discriminant(&mistake.value) == std::mem::discriminant(value)
                };
                let branch = branches.iter().find(fits).unwrap();
                let mut mistakes = refused([Value::Null, 1.into(), true.into()]);
                mistakes.extend(branch.mistakes(value).into_iter().filter(is_same_type));
                mistakes
            }
            (shape, value) => panic!("{value} is not of {shape:?}"),
        }
    }
}

fn value_name(index: usize) -> String {
    format!("v{index}")
}

fn integer(value: i128) -> Value {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => value.into(),
        (_, Ok(value)) => value.into(),
        _ => (value as f64).into(),
    }
}

fn struct_schema(prefix: &str, fields: &[Field]) -> Json {
    let mut schema = json!({"type": "object", "properties": {}, "required": []});
    for (index, field) in fields.iter().enumerate() {
        let name = format!("{prefix}{index}");
        if field.presence == Presence::Required {
            schema["required"].as_array_mut().unwrap().push(name.clone().into());
        }
        schema["properties"][name] = field.shape.schema();
    }
    schema
}

fn add_values(
    prefix: &str,
    fields: &[Field],
    object: &mut Object,
    choose: &mut dyn FnMut(usize) -> usize,
) {
    for (index, field) in fields.iter().enumerate() {
        let is_present = match field.presence {
            Presence::Required => true,
            Presence::Optional | Presence::Default => choose(2) == 0,
            Presence::Absent => false,
        };
        if is_present {
            object.insert(format!("{prefix}{index}"), field.shape.value(choose));
        }
    }
}

fn field_mistakes(prefix: &str, fields: &[Field], object: &Object) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let name = format!("{prefix}{index}");
        let Some(value) = object.get(&name) else { continue };
        if field.presence == Presence::Required {
            mistakes.extend(refused([without(object, &name)]));
        }
        mistakes.extend(field.shape.mistakes(value).into_iter().map(|mut mistake| {
            mistake.is_allowed_by_serde |=
                field.presence == Presence::Optional && mistake.value == Value::Null;
            mistake.within(|value| with(object, &name, value))
        }));
    }
    mistakes
}

fn with(object: &Object, name: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    object.insert(name, value);
    object.into()
}

fn without(object: &Object, name: &str) -> Value {
    let mut object = object.clone();
    object.remove(name);
    object.into()
}

thread_local! {
    static SCHEMA: RefCell<Json> = RefCell::default();
}

/// Has the schema that is set.
struct Dynamic;

impl JsonSchema for Dynamic {
    fn schema_name() -> Cow<'static, str> {
        "Dynamic".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        SCHEMA.with_borrow(|schema| schema.clone().try_into().unwrap())
    }
}

/// The arguments of this shape.
pub(crate) fn arguments(shape: &Shape) -> Arguments {
    SCHEMA.set(shape.schema());
    arguments_of::<Dynamic>().unwrap()
}
