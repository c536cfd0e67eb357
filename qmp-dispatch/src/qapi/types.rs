// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QAPI types of Rust types.

use std::mem::take;
use std::sync::Arc;

use qmp_proto::{Error, Json, Object, Value};
use schemars::JsonSchema;
use schemars::generate::Contract;
use serde::de::DeserializeOwned;

use super::check::Checker;
use super::decode::decode;
use super::derive::derive;
use super::error::{Problem, SchemaError};
use super::model::{self, Builtin, Kind, Model, TypeRef};
use super::output::Shown;
use super::path::Path;
use super::policy::Policy;
use super::{probe, unsigned};

/// The QAPI type of a Rust type, in the direction from server to client: results of commands and
/// data of events.
///
/// Made by [`type_of`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Type {
    pub(crate) model: Arc<Model>,
    /// `None` is the empty object of no arguments, no result and no data.
    pub(crate) root: Option<TypeRef>,
}

/// What has no members.
static NOTHING: model::Object = model::Object { members: Vec::new(), union: None, open: false };

/// Returns the QAPI type of `T` as a result or as the data of an event: what `T` is serialized to. The unit type is
/// the empty object.
///
/// # Errors
///
/// [`SchemaError`] if the type cannot be expressed in QAPI.
pub fn type_of<T: JsonSchema>() -> Result<Type, SchemaError> {
    Type::derive::<T>(Contract::Serialize)
}

/// Returns the QAPI type of `T` as the arguments of a command: what `T` is deserialized from. The unit type stands for no
/// arguments.
///
/// # Errors
///
/// [`SchemaError`] if the type cannot be expressed in QAPI, or is not an object: a struct, a tagged enum, or the
/// unit type.
pub fn arguments_of<T: JsonSchema>() -> Result<Arguments, SchemaError> {
    let ty = Type::derive::<T>(Contract::Deserialize)?;
    if ty.is_object() {
        return Ok(Arguments(ty));
    }
    let name = T::schema_name().into_owned();
    Err(SchemaError { place: name.clone(), type_name: name, problem: Problem::NotAnObject })
}

/// The same as [`arguments_of`], after checking that `T` deserializes what its schema describes. For tests: it
/// deserializes a few values, so that each member and each variant is in one of them. In debug builds, it is
/// called when a command is registered.
///
/// # Errors
///
/// Those of [`arguments_of`], and [`Problem::Disagreement`] if a value is refused for its shape.
///
/// ```
/// use qmp_dispatch::qapi::{Problem, check_arguments_of};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Level {
///     #[schemars(rename = "number")]
///     level: u8,
/// }
///
/// let problem = check_arguments_of::<Level>().unwrap_err().problem;
/// assert_eq!(problem, Problem::Disagreement("missing field `level`".to_owned()));
/// ```
pub fn check_arguments_of<T>() -> Result<Arguments, SchemaError>
where
    T: DeserializeOwned + JsonSchema,
{
    let arguments = arguments_of::<T>()?;
    match probe::disagreement::<T>(&arguments) {
        None => Ok(arguments),
        Some(reason) => {
            let name = T::schema_name().into_owned();
            let problem = Problem::Disagreement(reason);
            Err(SchemaError { place: name.clone(), type_name: name, problem })
        }
    }
}

impl Type {
    /// The empty object: no result, no data.
    pub fn empty() -> Type {
        Type { model: Arc::default(), root: None }
    }

    fn derive<T: JsonSchema>(contract: Contract) -> Result<Type, SchemaError> {
        let (model, root) = derive::<T>(contract)?;
        // A unit struct has a name and is a null like any other.
        let is_unit = root == TypeRef::Builtin(Builtin::Null) && T::schema_name() == "null";
        let is_empty = match model.object(&root) {
            Some(object) => object.is_empty() && !object.open,
            None => is_unit,
        };
        let root = (!is_empty).then_some(root);
        Ok(Type { model: Arc::new(model), root })
    }

    /// Returns the name in a QAPI schema: that of the Rust type or a builtin type, or the name of the elements in
    /// brackets. The empty object is called `q_empty`.
    pub fn name(&self) -> String {
        fn name(model: &Model, ty: &TypeRef) -> String {
            match ty {
                TypeRef::Builtin(builtin) => builtin.name().to_owned(),
                TypeRef::Array(element) => format!("[{}]", name(model, element)),
                TypeRef::Named(index) => model.definition(*index).name.clone(),
            }
        }
        match &self.root {
            Some(root) => name(&self.model, root),
            None => EMPTY_NAME.to_owned(),
        }
    }

    /// Whether this is an object, as the data of an event must be: a struct, a union or the unit
    /// type.
    pub fn is_object(&self) -> bool {
        match &self.root {
            Some(root) => self.model.object(root).is_some(),
            None => true,
        }
    }

    /// Returns the documentation comment of the Rust type.
    pub fn documentation(&self) -> Option<&str> {
        match &self.root {
            Some(TypeRef::Named(index)) => self.model.definition(*index).doc.as_deref(),
            _ => None,
        }
    }

    /// Returns a result or data of this type as clients get it: without members that the policy hides. The other members
    /// keep their order.
    #[must_use]
    pub fn shown(&self, policy: &Policy, json: Json) -> Json {
        if !self.hides(policy) {
            return json;
        }
        let value = json.to_value();
        let shown = Shown { model: &self.model, policy, ty: self.root.as_ref(), value: &value };
        Json::encode(&shown).unwrap_or(json)
    }

    fn hides(&self, policy: &Policy) -> bool {
        !policy.shows_everything()
            && self.model.members().any(|member| !policy.shows(&member.features))
    }

    /// Checks that a result or data is of this type, as arguments are checked.
    ///
    /// # Errors
    ///
    /// QEMU's error for such arguments.
    pub fn check(&self, json: &Json) -> Result<(), Error> {
        let value = json.to_value();
        let mut checker = Checker::of_output(&self.model);
        match (&self.root, &value) {
            (Some(root), value) => checker.value(root, value, &Path::ARGUMENTS),
            (None, Value::Object(object)) => checker.object(&NOTHING, object, &Path::ARGUMENTS),
            (None, _) => Err(Error::generic("Expected an empty object")),
        }
    }

    fn object(&self) -> Option<&model::Object> {
        self.model.object(self.root.as_ref()?)
    }
}

/// What QEMU calls the type of no arguments.
pub(crate) const EMPTY_NAME: &str = "q_empty";

impl Builtin {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Builtin::Str(_) => "str",
            Builtin::Int(_) => "int",
            Builtin::Number => "number",
            Builtin::Bool => "bool",
            Builtin::Null => "null",
            Builtin::Any => "any",
        }
    }
}

/// The QAPI type of the arguments of a command: an object.
///
/// Made by [`arguments_of`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Arguments(Type);

impl Arguments {
    /// Returns the type of a command without arguments.
    pub fn none() -> Arguments {
        Arguments(Type::empty())
    }

    /// Returns this as a [`Type`].
    pub fn as_type(&self) -> &Type {
        &self.0
    }

    /// Checks arguments as QEMU does: in the order of declaration, nested ones before the next.
    ///
    /// Allocates nothing on success.
    ///
    /// # Errors
    ///
    /// QEMU's first error, in its words.
    pub fn check(&self, arguments: &Object) -> Result<(), Error> {
        self.check_with(&Policy::default(), arguments)
    }

    /// As [`check`](Arguments::check), under a policy for what is deprecated or unstable: members
    /// and values of enums.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Arguments::check), and what the policy rejects.
    pub fn check_with(&self, policy: &Policy, arguments: &Object) -> Result<(), Error> {
        self.checked(policy, arguments).map(drop)
    }

    /// Checks arguments and converts them for serde: QEMU accepts negative numbers for unsigned members of 64 bits as
    /// the large number with the same bits, and serde does not.
    ///
    /// Afterwards, deserialization fails only if the type is stricter than its schema, such as an address for a
    /// string.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Arguments::check).
    pub fn prepare(&self, arguments: Object) -> Result<Object, Error> {
        self.prepare_with(&Policy::default(), arguments)
    }

    /// As [`prepare`](Arguments::prepare), under a policy for what is deprecated or unstable.
    ///
    /// # Errors
    ///
    /// Those of [`check_with`](Arguments::check_with).
    pub fn prepare_with(&self, policy: &Policy, mut arguments: Object) -> Result<Object, Error> {
        let checked = self.checked(policy, &arguments)?;
        self.convert(checked, &mut arguments);
        Ok(arguments)
    }

    /// Converts arguments that have been [checked](Arguments::checked) for serde, without moving those that are ready.
    pub(crate) fn convert(&self, checked: Checked, arguments: &mut Object) {
        if checked.wraps
            && let Some(object) = self.0.object()
        {
            *arguments = unsigned::wrap(&self.0.model, object, take(arguments));
        }
    }

    /// Checks arguments and deserializes them.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Arguments::check), and those of the deserialization of `T`, in QEMU's words
    /// or, behind these, in its own.
    pub fn decode<T: DeserializeOwned>(&self, arguments: Object) -> Result<T, Error> {
        decode(self.prepare(arguments)?)
    }

    /// Checks arguments that are then to be [converted](Arguments::convert).
    pub(crate) fn checked(&self, policy: &Policy, arguments: &Object) -> Result<Checked, Error> {
        let object = self.0.object();
        if object.is_none() && arguments.is_empty() {
            return Ok(Checked { wraps: false });
        }
        let object = object.unwrap_or(&NOTHING);
        let mut checker = Checker::of_input(&self.0.model, policy);
        checker.object(object, arguments, &Path::ARGUMENTS)?;
        Ok(Checked { wraps: checker.wraps })
    }
}

/// What is known of arguments of the right type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// There are negative numbers for unsigned members.
    wraps: bool,
}

impl Kind {
    pub(crate) fn is_open_map(&self) -> bool {
        matches!(self, Kind::Object(object) if object.open && object.is_empty())
    }
}
