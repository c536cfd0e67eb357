// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI types as data.

use std::fmt;
use std::ops::RangeInclusive;

/// Types that may refer to each other by index.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) definitions: Vec<Definition>,
}

impl Model {
    pub(crate) fn definition(&self, index: usize) -> &Definition {
        &self.definitions[index]
    }

    /// The object that `ty` is, if it is one.
    pub(crate) fn object(&self, ty: &TypeRef) -> Option<&Object> {
        match ty {
            TypeRef::Named(index) => match &self.definition(*index).kind {
                Kind::Object(object) => Some(object),
                Kind::Enum(_) | Kind::Alternate(_) => None,
            },
            TypeRef::Builtin(_) | TypeRef::Array(_) => None,
        }
    }

    /// The members of all objects.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.definitions.iter().flat_map(|definition| match &definition.kind {
            Kind::Object(object) => object.members.as_slice(),
            Kind::Enum(_) | Kind::Alternate(_) => &[],
        })
    }

    /// The type and what the values of its tags add, outermost first.
    pub(crate) fn layers<'m>(
        &'m self,
        ty: &'m Object,
        object: &qmp_proto::Object,
    ) -> Vec<&'m Object> {
        std::iter::successors(Some(ty), |ty| self.branch(ty, object)).collect()
    }

    /// The members that the value of the tag adds.
    pub(crate) fn branch(&self, ty: &Object, object: &qmp_proto::Object) -> Option<&Object> {
        let union = ty.union.as_ref()?;
        let value = object.get(&ty.members[union.tag].name)?.as_str()?;
        let case = union.cases.iter().find(|case| case.value == value)?;
        self.object(case.ty.as_ref()?)
    }
}

/// A use of a type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TypeRef {
    Builtin(Builtin),
    Array(Box<TypeRef>),
    /// An index into [`Model::definitions`].
    Named(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Builtin {
    Str(Length),
    Int(Integer),
    Number,
    Bool,
    Null,
    Any,
}

/// How many characters a string may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Length {
    pub(crate) const ANY: Length = Length { min: 0, max: u64::MAX };

    pub(crate) fn admits(self, text: &str) -> bool {
        self == Length::ANY || (self.min..=self.max).contains(&(text.chars().count() as u64))
    }
}

/// As in errors: `expects …`.
impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Length { min: 1, max: 1 } => f.write_str("a single character"),
            Length { min, max } if min == max => write!(f, "a string of {min} characters"),
            Length { min, max: u64::MAX } => write!(f, "a string of at least {min} characters"),
            Length { min: 0, max } => write!(f, "a string of at most {max} characters"),
            Length { min, max } => write!(f, "a string of {min} to {max} characters"),
        }
    }
}

/// An integer type: its width, the bounds if they are narrower than that, and whether zero is none of
/// its numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Integer {
    pub(crate) width: Width,
    pub(crate) bounds: Option<RangeInclusive<i128>>,
    pub(crate) nonzero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// Of 64 bits, and not known to be signed or unsigned.
    Any64,
}

impl Width {
    /// The name in error messages, which is that of the C type.
    pub(crate) fn c_name(self) -> &'static str {
        match self {
            Width::I8 => "int8_t",
            Width::I16 => "int16_t",
            Width::I32 => "int32_t",
            Width::I64 => "int64_t",
            Width::U8 => "uint8_t",
            Width::U16 => "uint16_t",
            Width::U32 => "uint32_t",
            Width::U64 => "uint64_t",
            Width::Any64 => "a 64-bit integer",
        }
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Width::I8 | Width::I16 | Width::I32 | Width::I64 | Width::Any64)
    }

    pub(crate) fn range(self) -> RangeInclusive<i128> {
        fn range<N: Into<i128>>(min: N, max: N) -> RangeInclusive<i128> {
            min.into()..=max.into()
        }
        match self {
            Width::I8 => range(i8::MIN, i8::MAX),
            Width::I16 => range(i16::MIN, i16::MAX),
            Width::I32 => range(i32::MIN, i32::MAX),
            Width::I64 => range(i64::MIN, i64::MAX),
            Width::U8 => range(u8::MIN, u8::MAX),
            Width::U16 => range(u16::MIN, u16::MAX),
            Width::U32 => range(u32::MIN, u32::MAX),
            Width::U64 => range(u64::MIN, u64::MAX),
            Width::Any64 => i64::MIN.into()..=u64::MAX.into(),
        }
    }
}

/// A type with a name.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) doc: Option<String>,
    pub(crate) features: Vec<String>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Enum(Vec<EnumValue>),
    Object(Object),
    Alternate(Vec<TypeRef>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EnumValue {
    pub(crate) name: String,
    pub(crate) features: Vec<String>,
    pub(crate) doc: Option<String>,
}

/// A structure, or a union if it has a tag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    pub(crate) members: Vec<Member>,
    pub(crate) union: Option<Union>,
    /// Whether members that are not listed here are accepted.
    pub(crate) open: bool,
}

impl Object {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.union.is_none()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ty: TypeRef,
    pub(crate) optional: bool,
    /// Optional because it is an `Option`, for which serde takes null like nothing.
    pub(crate) nullable: bool,
    pub(crate) features: Vec<String>,
    pub(crate) doc: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Union {
    /// The index of the tag among the members.
    pub(crate) tag: usize,
    pub(crate) cases: Vec<Case>,
}

/// What a value of the tag adds to the members.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) value: String,
    /// An object, or nothing.
    pub(crate) ty: Option<TypeRef>,
}
