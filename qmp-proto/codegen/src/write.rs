// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes Rust.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::ident::{camel, constant, field, unique};
use crate::names::{Names, json_type};
use crate::qapi::{Known, Place};
use crate::schema::{Builtin, EnumValue, Id, Kind, Member, Members, Schema, Tag};

pub(crate) struct Writer<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) known: &'s Known,
    pub(crate) names: &'s Names,
    /// The path of `qmp_proto`.
    pub(crate) proto: &'s str,
    /// The path of `qmp_dispatch`, if the types are to describe themselves.
    pub(crate) dispatch: Option<&'s str>,
    pub(crate) out: String,
}

/// The field of members that the schema does not list. No member has this name.
const MORE: &str = "more_";

/// How a type is deserialized.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Derived,
    ByHand,
}

/// A line of code. Braces in it are those of Rust.
macro_rules! line {
    ($writer:expr, $($format:tt)*) => {
        // Writing to a string does not fail.
        _ = writeln!($writer.out, $($format)*)
    };
}

impl Writer<'_> {
    pub(crate) fn types(&mut self) {
        for &id in &self.names.order {
            let name = self.names.names[&id].clone();
            match &self.schema.types[id].kind {
                Kind::Enum(values) if self.is_used_as_enum(id) => {
                    self.enumeration(id, &name, values);
                }
                Kind::Alternate(branches) => self.alternate(id, &name, branches),
                Kind::Object(object) => match &object.tag {
                    None if self.schema.is_empty(id) && !self.is_used_as_member(id) => {}
                    None => self.structure(id, &name, object),
                    Some(tag) => self.union(id, &name, object, tag),
                },
                _ => {}
            }
        }
    }

    /// The commands as types, and the events as values, of the types before.
    pub(crate) fn entities(&mut self, commands: &[usize], events: &[usize]) {
        let (schema, proto) = (self.schema, self.proto);
        if !commands.is_empty() {
            line!(self, "/// The commands: types that say what they take and return.");
            line!(self, "pub mod commands {{");
        }
        let mut taken = HashSet::new();
        for &index in commands {
            let command = &schema.commands[index];
            let name = unique(camel(&command.name), &mut taken);
            let place = (Place::Result, command.name.clone());
            let integer = self.known.integers.get(&place).copied();
            let band = if command.allow_oob { ", which can be executed out of band" } else { "" };
            line!(self, "    /// The command `{}`{band}.", command.name);
            line!(self, "    #[derive(Clone, Copy, Debug)]");
            line!(self, "    pub struct {name};\n");
            line!(self, "    impl {proto}::CommandType for {name} {{");
            line!(self, "        const NAME: &'static str = {:?};", command.name);
            if !command.features.is_empty() {
                line!(
                    self,
                    "        const FEATURES: &'static [&'static str] = &{:?};",
                    command.features
                );
            }
            line!(self, "        type Arguments = {};", self.entity_type(command.arguments, None));
            line!(self, "        type Result = {};", self.entity_type(command.result, integer));
            line!(self, "    }}\n");
        }
        if !commands.is_empty() {
            line!(self, "}}\n");
        }
        if events.is_empty() {
            return;
        }
        line!(self, "/// The events.");
        line!(self, "pub mod events {{");
        let mut taken = HashSet::new();
        for &index in events {
            let event = &schema.events[index];
            let name = unique(constant(&event.name), &mut taken);
            let data = self.entity_type(event.data, None);
            line!(self, "    /// The event `{}`.", event.name);
            line!(self, "    pub const {name}: {proto}::EventType<{data}> =");
            let features = match event.features.is_empty() {
                true => String::new(),
                false => format!(".with_features(&{:?})", event.features),
            };
            line!(self, "        {proto}::EventType::new({:?}){features};", event.name);
        }
        line!(self, "}}");
    }

    /// A type as a module within sees it. The empty object is nothing.
    fn entity_type(&self, id: Id, integer: Option<&str>) -> String {
        if self.schema.is_empty(id) {
            return "()".to_owned();
        }
        let any = format!("{}::Value", self.proto);
        self.ty(id, integer.unwrap_or("i128"), &any, "super::")
    }

    /// Whether an enum is more than the type of tags, which the variants of their unions say already.
    fn is_used_as_enum(&self, id: Id) -> bool {
        let schema = self.schema;
        let is = |ty| self.innermost(ty) == id;
        let in_type = |user: &Id| match &schema.types[*user].kind {
            Kind::Object(object) => {
                let tag = object.tag.as_ref().map(|tag| tag.member);
                let members = object.members.iter().enumerate();
                members.filter(|(index, _)| Some(*index) != tag).any(|(_, member)| is(member.ty))
            }
            Kind::Alternate(branches) => branches.iter().any(|&branch| is(branch)),
            _ => false,
        };
        self.names.order.iter().any(in_type)
            || schema.commands.iter().any(|command| is(command.result))
    }

    fn is_used_as_member(&self, id: Id) -> bool {
        let is = |ty| self.innermost(ty) == id;
        self.names.order.iter().any(|user| match &self.schema.types[*user].kind {
            Kind::Object(object) => object.members.iter().any(|member| is(member.ty)),
            Kind::Alternate(branches) => branches.iter().any(|&branch| is(branch)),
            _ => false,
        })
    }

    fn innermost(&self, mut id: Id) -> Id {
        while let Kind::Array(element) = self.schema.types[id].kind {
            id = element;
        }
        id
    }

    /// The attributes of a type. What is read by hand derives no `Deserialize`.
    fn derive(
        &mut self,
        traits: &[&str],
        reads: Reads,
        serde: Option<&str>,
        extensions: &[String],
    ) {
        let proto = self.proto;
        let mut derived = vec!["Clone".to_owned(), "Debug".to_owned(), "PartialEq".to_owned()];
        derived.extend(traits.iter().map(|name| (*name).to_owned()));
        derived.push(format!("{proto}::serde::Serialize"));
        if reads == Reads::Derived {
            derived.push(format!("{proto}::serde::Deserialize"));
        }
        if let Some(dispatch) = self.dispatch {
            derived.push(format!("{dispatch}::schemars::JsonSchema"));
        }
        line!(self, "#[derive({})]", derived.join(", "));
        let mut attributes = vec![format!("crate = \"{proto}::serde\"")];
        attributes.extend(serde.map(str::to_owned));
        line!(self, "#[serde({})]", attributes.join(", "));
        if let Some(dispatch) = self.dispatch {
            let mut attributes = vec![format!("crate = \"{dispatch}::schemars\"")];
            attributes.extend_from_slice(extensions);
            line!(self, "#[schemars({})]", attributes.join(", "));
        }
    }

    /// An attribute of schemars alone, for types that describe themselves.
    fn described(&mut self, indent: &str, attributes: &[String]) {
        if self.dispatch.is_some() && !attributes.is_empty() {
            line!(self, "{indent}#[schemars({})]", attributes.join(", "));
        }
    }

    fn enumeration(&mut self, id: Id, name: &str, values: &[EnumValue]) {
        let mut extensions = extend_features(&self.schema.types[id].features);
        // Variants with attributes would come after the others.
        if values.iter().any(|value| !value.features.is_empty()) {
            let order: Vec<_> = values.iter().map(|value| value.name.as_str()).collect();
            extensions.push(extend("x-qapi-order", &order));
        }
        self.derive(&["Eq", "Hash"], Reads::Derived, None, &extensions);
        line!(self, "pub enum {name} {{");
        let mut taken = HashSet::new();
        for value in values {
            let variant = unique(camel(&value.name), &mut taken);
            self.described("    ", &extend_features(&value.features));
            line!(self, "    #[serde(rename = {:?})]", value.name);
            line!(self, "    {variant},");
        }
        self.unknown(&mut taken, "A value that the schema did not have.", "String");
        line!(self, "}}\n");
    }

    /// The variant for what a newer server sends. It is no part of the schema.
    fn unknown(&mut self, taken: &mut HashSet<String>, doc: &str, content: &str) -> String {
        let name = if taken.contains("Unknown") { "Unrecognized" } else { "Unknown" };
        let name = unique(name.to_owned(), taken);
        line!(self, "    /// {doc}");
        line!(self, "    #[serde(untagged)]");
        self.described("    ", &["skip".to_owned()]);
        line!(self, "    {name}({content}),");
        name
    }

    fn structure(&mut self, id: Id, name: &str, object: &Members) {
        let is_default = object.members.iter().all(|member| member.optional);
        let traits: &[&str] = if is_default { &["Default"] } else { &[] };
        self.derive(
            traits,
            Reads::Derived,
            None,
            &extend_features(&self.schema.types[id].features),
        );
        line!(self, "pub struct {name} {{");
        let fields = fields(object);
        for (member, field) in object.members.iter().zip(&fields) {
            self.field(id, member, field);
        }
        if self.known.open.contains(&id) {
            line!(self, "    /// Other members, which the schema does not list.");
            line!(self, "    #[serde(flatten)]");
            if let Some(dispatch) = self.dispatch {
                let map = format!("std::collections::BTreeMap<String, {dispatch}::qapi::Any>");
                self.described("    ", &[format!("with = {map:?}")]);
            }
            line!(self, "    pub {MORE}: {}::Object,", self.proto);
        }
        line!(self, "}}\n");
        self.constructor(id, name, object, &fields);
    }

    fn field(&mut self, owner: Id, member: &Member, field: &str) {
        let mut attributes = Vec::new();
        if field.trim_start_matches("r#") != member.name {
            attributes.push(format!("rename = {:?}", member.name));
        }
        if member.optional {
            attributes.push("default".to_owned());
            attributes.push("skip_serializing_if = \"Option::is_none\"".to_owned());
            if self.may_be_null(member.ty) {
                attributes.push(format!("deserialize_with = \"{}::decode::present\"", self.proto));
            }
        }
        if !attributes.is_empty() {
            line!(self, "    #[serde({})]", attributes.join(", "));
        }
        let mut described = extend_features(&member.features);
        described.extend(self.with(
            member.ty,
            self.integer(owner, &member.name),
            self.may_be_null(member.ty),
        ));
        self.described("    ", &described);
        line!(self, "    pub {field}: {},", self.member_type(owner, member));
    }

    /// A function with the members that there must be, if others need not.
    fn constructor(&mut self, id: Id, name: &str, object: &Members, fields: &[String]) {
        let tag = object.tag.as_ref().map(|tag| tag.member);
        let is_needed = |index: usize, member: &Member| Some(index) == tag || !member.optional;
        let needed =
            object.members.iter().enumerate().filter(|(index, member)| is_needed(*index, member));
        let needed = needed.count();
        let is_open = self.known.open.contains(&id);
        if needed == 0 || needed == object.members.len() && !is_open {
            return;
        }
        let mut parameters = Vec::new();
        let mut values = Vec::new();
        for (index, (member, field)) in object.members.iter().zip(fields).enumerate() {
            if Some(index) == tag {
                parameters.push(format!("{field}: {}", self.names.variants[&id]));
                values.push(field.clone());
            } else if member.optional {
                values.push(format!("{field}: None"));
            } else {
                parameters.push(format!("{field}: {}", self.member_type(id, member)));
                values.push(field.clone());
            }
        }
        if is_open {
            values.push(format!("{MORE}: {}::Object::new()", self.proto));
        }
        line!(self, "impl {name} {{");
        line!(self, "    /// Creates one without optional members.");
        line!(self, "    #[allow(clippy::too_many_arguments)]");
        line!(self, "    pub fn new({}) -> Self {{", parameters.join(", "));
        line!(self, "        Self {{ {} }}", values.join(", "));
        line!(self, "    }}");
        line!(self, "}}\n");
    }

    fn union(&mut self, id: Id, name: &str, object: &Members, tag: &Tag) {
        let tag_member = &object.members[tag.member];
        let mut extensions = extend_features(&self.schema.types[id].features);
        extensions
            .push(format!("extend(\"x-qapi-tag-type\" = {:?})", self.names.names[&tag_member.ty]));
        let Kind::Enum(values) = &self.schema.types[tag_member.ty].kind else { return };
        let order: Vec<_> = values.iter().map(|value| value.name.as_str()).collect();
        if !order.iter().copied().eq(tag.cases.iter().map(|case| case.value.as_str())) {
            extensions.push(extend("x-qapi-tag-order", &order));
        }
        let Some(variants) = self.names.variants.get(&id).cloned() else {
            return self.variants(name, tag_member, tag, &extensions);
        };
        if tag.member > 0 {
            let order: Vec<_> =
                object.members[..tag.member].iter().map(|member| member.name.as_str()).collect();
            extensions.push(extend("x-qapi-order", &order));
        }
        self.derive(&[], Reads::ByHand, None, &extensions);
        line!(self, "pub struct {name} {{");
        let fields = fields(object);
        for (index, (member, field)) in object.members.iter().zip(&fields).enumerate() {
            if index == tag.member {
                line!(self, "    #[serde(flatten)]");
                line!(self, "    pub {field}: {variants},");
            } else {
                self.field(id, member, field);
            }
        }
        line!(self, "}}\n");
        self.constructor(id, name, object, &fields);
        let proto = self.proto;
        self.deserialize(name, "object", "mut members", |this| {
            line!(this, "            Ok(Self {{");
            for (index, (member, field)) in object.members.iter().zip(&fields).enumerate() {
                let function = if member.optional { "optional_member" } else { "member" };
                if index != tag.member {
                    line!(this, "                {field}: {proto}::decode::{function}(&mut members, {:?})?,", member.name);
                }
            }
            // What is left belongs to the variant.
            line!(this, "                {}: {proto}::from_object(members)?,", fields[tag.member]);
            line!(this, "            }})");
        });
        self.variants(&variants, tag_member, tag, &[]);
    }

    fn variants(&mut self, name: &str, tag_member: &Member, tag: &Tag, extensions: &[String]) {
        let proto = self.proto;
        let serde = format!("tag = {:?}", tag_member.name);
        self.derive(&[], Reads::ByHand, Some(&serde), extensions);
        line!(self, "#[allow(clippy::large_enum_variant)]");
        line!(self, "pub enum {name} {{");
        let mut taken = HashSet::new();
        let features = match &self.schema.types[tag_member.ty].kind {
            Kind::Enum(values) => values.as_slice(),
            _ => &[],
        };
        let mut arms = String::new();
        for case in &tag.cases {
            let variant = unique(camel(&case.value), &mut taken);
            let features = features.iter().find(|value| value.name == case.value);
            self.described("    ", &extend_features(features.map_or(&[], |value| &value.features)));
            line!(self, "    #[serde(rename = {:?})]", case.value);
            if self.schema.is_empty(case.ty) {
                line!(self, "    {variant},");
                _ = writeln!(arms, "                {:?} => Self::{variant},", case.value);
            } else {
                line!(self, "    {variant}({}),", self.own_type(case.ty, None));
                _ = writeln!(
                    arms,
                    "                {:?} => Self::{variant}({proto}::from_object(members)?),",
                    case.value
                );
            }
        }
        let doc = "A variant that the schema did not have: its members, with the tag.";
        let unknown = self.unknown(&mut taken, doc, &format!("{proto}::Object"));
        line!(self, "}}\n");
        self.deserialize(name, "object", "members", |this| {
            line!(
                this,
                "            Ok(match {proto}::decode::tag(&members, {:?})? {{",
                tag_member.name
            );
            this.out += &arms;
            line!(this, "                _ => Self::{unknown}(members),");
            line!(this, "            }})");
        });
    }

    fn alternate(&mut self, id: Id, name: &str, branches: &[Id]) {
        let proto = self.proto;
        self.derive(
            &[],
            Reads::ByHand,
            Some("untagged"),
            &extend_features(&self.schema.types[id].features),
        );
        line!(self, "#[allow(clippy::large_enum_variant)]");
        line!(self, "pub enum {name} {{");
        let mut taken = HashSet::new();
        let mut arms = String::new();
        let mut expected = Vec::new();
        let known = self.known.branches.get(&id);
        for (index, &branch) in branches.iter().enumerate() {
            let kind = &self.schema.types[branch].kind;
            let json_type = json_type(kind);
            let own = known.and_then(|names| names.get(index));
            let variant = unique(own.map_or(json_type.to_owned(), |own| camel(own)), &mut taken);
            expected.push(match json_type {
                "Null" => "null".to_owned(),
                "Array" | "Object" => format!("an {}", json_type.to_ascii_lowercase()),
                "Bool" => "a boolean".to_owned(),
                other => format!("a {}", other.to_ascii_lowercase()),
            });
            if let Kind::Builtin(Builtin::Null) = kind {
                line!(self, "    {variant},");
                _ = writeln!(arms, "                {proto}::Value::Null => Self::{variant},");
                continue;
            }
            let integer = own.and_then(|own| self.integer(id, own));
            let described: Vec<_> = self.with(branch, integer, false).into_iter().collect();
            self.described("    ", &described);
            line!(self, "    {variant}({}),", self.own_type(branch, integer));
            _ = writeln!(
                arms,
                "                value @ {proto}::Value::{json_type}(_) => Self::{variant}({proto}::from_value(value)?),"
            );
        }
        line!(self, "}}\n");
        let expected = expected.join(" or ");
        self.deserialize(name, "value", "value", |this| {
            line!(this, "            Ok(match value {{");
            this.out += &arms;
            // All are covered only by an alternate of all types.
            line!(this, "                #[allow(unreachable_patterns)]");
            line!(this, "                other => return Err({proto}::decode::unexpected(&other, {expected:?})),");
            line!(this, "            }})");
        });
    }

    fn deserialize(
        &mut self,
        name: &str,
        function: &str,
        parameter: &str,
        body: impl FnOnce(&mut Self),
    ) {
        let proto = self.proto;
        line!(self, "impl<'de> {proto}::serde::Deserialize<'de> for {name} {{");
        line!(
            self,
            "    fn deserialize<D: {proto}::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {{"
        );
        line!(self, "        {proto}::decode::{function}(deserializer, |{parameter}| {{");
        body(self);
        line!(self, "        }})");
        line!(self, "    }}");
        line!(self, "}}\n");
    }

    /// The integer type of a member, if it is known.
    fn integer(&self, owner: Id, name: &str) -> Option<&'static str> {
        self.known.integers.get(&(Place::Type(owner), name.to_owned())).copied()
    }

    fn member_type(&self, owner: Id, member: &Member) -> String {
        let integer = self.integer(owner, &member.name);
        let mut ty = self.own_type(member.ty, integer);
        if self.is_recursive(owner, member.ty) {
            ty = format!("Box<{ty}>");
        }
        if member.optional { format!("Option<{ty}>") } else { ty }
    }

    fn own_type(&self, id: Id, integer: Option<&str>) -> String {
        self.ty(id, integer.unwrap_or("i128"), &format!("{}::Value", self.proto), "")
    }

    fn ty(&self, id: Id, integer: &str, any: &str, module: &str) -> String {
        match &self.schema.types[id].kind {
            Kind::Builtin(builtin) => match builtin {
                Builtin::Str => "String",
                Builtin::Int => integer,
                Builtin::Number => "f64",
                Builtin::Bool => "bool",
                Builtin::Null => "()",
                Builtin::Any => any,
            }
            .to_owned(),
            Kind::Array(element) => format!("Vec<{}>", self.ty(*element, integer, any, module)),
            _ => format!("{module}{}", self.names.names[&id]),
        }
    }

    /// The schema of a member whose type has none, or must not look like an option.
    fn with(&self, id: Id, integer: Option<&str>, present: bool) -> Option<String> {
        let dispatch = self.dispatch?;
        let is_special = match self.schema.types[self.innermost(id)].kind {
            Kind::Builtin(Builtin::Any) => true,
            Kind::Builtin(Builtin::Int) => integer.is_none(),
            _ => false,
        };
        let int = format!("{dispatch}::qapi::Int");
        let any = format!("{dispatch}::qapi::Any");
        (is_special || present)
            .then(|| format!("with = {:?}", self.ty(id, integer.unwrap_or(&int), &any, "")))
    }

    /// Whether null is among the values of a type.
    fn may_be_null(&self, id: Id) -> bool {
        match &self.schema.types[id].kind {
            Kind::Builtin(builtin) => matches!(builtin, Builtin::Null | Builtin::Any),
            Kind::Alternate(branches) => branches.iter().any(|&branch| self.may_be_null(branch)),
            _ => false,
        }
    }

    /// Whether a type contains its owner, other than in arrays. Each circle has a member in it: a union is not a variant of its
    /// own, since their members would have the same names.
    fn is_recursive(&self, owner: Id, id: Id) -> bool {
        let mut seen = HashSet::new();
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            if id == owner {
                return true;
            }
            if !seen.insert(id) {
                continue;
            }
            match &self.schema.types[id].kind {
                Kind::Object(object) => {
                    todo.extend(object.members.iter().map(|member| member.ty));
                    todo.extend(object.tag.iter().flat_map(|tag| &tag.cases).map(|case| case.ty));
                }
                Kind::Alternate(branches) => todo.extend(branches),
                Kind::Builtin(_) | Kind::Enum(_) | Kind::Array(_) => {}
            }
        }
        false
    }
}

/// The names of the fields of a type.
fn fields(object: &Members) -> Vec<String> {
    let mut taken = HashSet::new();
    object.members.iter().map(|member| unique(field(&member.name), &mut taken)).collect()
}

fn extend(key: &str, names: &[&str]) -> String {
    format!("extend({key:?} = {names:?})")
}

fn extend_features(features: &[String]) -> Vec<String> {
    let features: Vec<_> = features.iter().map(String::as_str).collect();
    if features.is_empty() { Vec::new() } else { vec![extend("x-qapi-features", &features)] }
}
