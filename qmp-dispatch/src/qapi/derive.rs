// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the JSON Schema of a Rust type to the QAPI type.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value};

use super::check::{branch_of, json_type};
use super::error::{Problem, SchemaError};
use super::model::{
    Builtin, Case, Definition, EnumValue, Kind, Member, Model, Object, TypeRef, Union,
};
use super::name::{is_name, is_value};
use super::place::{Misfit, Place};
use super::scalar;
use super::schema::{
    ORDER, Schema, array, doc, enum_values, features, has_shape, in_order, is_array, is_fixed,
    is_named, is_open, properties, tag, unchecked_keyword, with_variants, without_null,
};

const TAG_TYPE: &str = "x-qapi-tag-type";
const TAG_ORDER: &str = "x-qapi-tag-order";

/// The type `T` on the wire: as it is deserialized, or as it is serialized.
pub(crate) fn derive<T: JsonSchema>(contract: Contract) -> Result<(Model, TypeRef), SchemaError> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.contract = contract.clone();
    let mut generator = settings.into_generator();
    let schema = generator.subschema_for::<T>().to_value();
    let mut deriver = Deriver {
        contract,
        schemas: generator.take_definitions(true),
        known: HashMap::new(),
        aliases: HashSet::new(),
        model: Model::default(),
    };
    let name = T::schema_name();
    let derived = deriver.type_ref(&schema, &Place::of_type(&name));
    let derived = derived.and_then(|root| {
        if deriver.contract == Contract::Deserialize {
            deriver.model.refuse_null_or_absent()?;
        }
        Ok(root)
    });
    match derived {
        Ok(root) => {
            // A program may have a registry for each of a thousand servers.
            deriver.model.definitions.shrink_to_fit();
            Ok((deriver.model, root))
        }
        Err(Misfit { place, problem }) => {
            Err(SchemaError { type_name: name.into_owned(), place, problem })
        }
    }
}

fn refuse_name(name: &str, is_name: bool, place: &Place) -> Result<(), Misfit> {
    if is_name { Ok(()) } else { place.misfit(Problem::Name(name.to_owned())) }
}

impl Model {
    /// Refuses options of what may be null by itself: serde reads both as `None`.
    fn refuse_null_or_absent(&self) -> Result<(), Misfit> {
        for definition in &self.definitions {
            let Kind::Object(object) = &definition.kind else { continue };
            let mut nullable = object.members.iter().filter(|member| member.nullable);
            if let Some(member) = nullable.find(|member| self.may_be_null(&member.ty)) {
                return Place::of_type(&definition.name)
                    .member(&member.name)
                    .misfit(Problem::NullOrAbsent);
            }
        }
        Ok(())
    }

    fn may_be_null(&self, ty: &TypeRef) -> bool {
        let TypeRef::Named(index) = ty else { return false };
        match &self.definition(*index).kind {
            Kind::Alternate(branches) => {
                branch_of(self, branches, &qmp_proto::Value::Null).is_some()
            }
            Kind::Enum(_) | Kind::Object(_) => false,
        }
    }
}

struct Deriver {
    contract: Contract,
    /// Those that others refer to, by name.
    schemas: Map<String, Value>,
    /// What the names stand for, as far as known.
    known: HashMap<String, TypeRef>,
    /// Names being resolved that have no definition of their own.
    aliases: HashSet<String>,
    model: Model,
}

impl Deriver {
    fn type_ref(&mut self, schema: &Value, place: &Place) -> Result<TypeRef, Misfit> {
        let schema = match schema {
            Value::Bool(true) => return Ok(TypeRef::Builtin(Builtin::Any)),
            Value::Object(schema) => schema,
            _ => return place.misfit(Problem::Unsupported(schema.to_string())),
        };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            if has_shape(schema) {
                return place.misfit(Problem::Flattened);
            }
            return self.reference(target, place);
        }
        if let Some([only]) = array(schema, "allOf") {
            return self.type_ref(only, place);
        }
        if !is_array(schema) {
            self.refuse_unchecked(schema, place)?;
        }
        if is_named(schema) {
            return self.define(schema, place, |_, _| {});
        }
        self.anonymous(schema, place)
    }

    /// What clients send is checked, so nothing must be left that is not.
    fn refuse_unchecked(&self, schema: &Schema, place: &Place) -> Result<(), Misfit> {
        match unchecked_keyword(schema) {
            Some(keyword) if self.contract == Contract::Deserialize => {
                place.misfit(Problem::Unchecked(keyword))
            }
            _ => Ok(()),
        }
    }

    fn reference(&mut self, target: &str, place: &Place) -> Result<TypeRef, Misfit> {
        let name = target.strip_prefix("#/$defs/").unwrap_or(target);
        // As in JSON pointers.
        let name = name.replace("~1", "/").replace("~0", "~");
        if let Some(known) = self.known.get(&name) {
            return Ok(known.clone());
        }
        let Some(schema) = self.schemas.get(&name).cloned() else {
            return place.misfit(Problem::Unsupported(target.to_owned()));
        };
        let own = Place::of_type(&name);
        let ty = match &schema {
            Value::Object(schema) if is_named(schema) => {
                self.define(schema, &own, |this, ty| {
                    this.known.insert(name.clone(), ty);
                })?
            }
            _ => {
                if !self.aliases.insert(name.clone()) {
                    return own.misfit(Problem::Endless);
                }
                self.type_ref(&schema, &own)?
            }
        };
        self.known.insert(name, ty.clone());
        Ok(ty)
    }

    /// Adds a type of a name. `announce` is told before its parts are looked at: they may refer to
    /// it.
    fn define(
        &mut self,
        schema: &Schema,
        place: &Place,
        announce: impl FnOnce(&mut Deriver, TypeRef),
    ) -> Result<TypeRef, Misfit> {
        let index = self.add(Definition {
            name: place.name.clone(),
            doc: doc(schema),
            features: features(schema, place)?,
            kind: Kind::Object(Object::default()),
        });
        announce(self, TypeRef::Named(index));
        let schema = &*with_variants(schema);
        let kind = if let Some(values) = enum_values(schema, place)? {
            for value in &values {
                refuse_name(&value.name, is_value(&value.name), place)?;
            }
            Kind::Enum(in_order(schema, ORDER, values, |value| &value.name, place)?)
        } else if let Some(branches) = array(schema, "anyOf")
            && !schema.contains_key("properties")
        {
            Kind::Alternate(self.alternate(branches, place)?)
        } else {
            Kind::Object(self.object(schema, place)?)
        };
        self.model.definitions[index].kind = kind;
        Ok(TypeRef::Named(index))
    }

    fn add(&mut self, definition: Definition) -> usize {
        self.model.definitions.push(definition);
        self.model.definitions.len() - 1
    }

    fn alternate(&mut self, branches: &[Value], place: &Place) -> Result<Vec<TypeRef>, Misfit> {
        let mut types = Vec::new();
        let mut seen = Vec::new();
        for (number, schema) in branches.iter().enumerate() {
            let ty = self.type_ref(schema, &place.member(&number.to_string()))?;
            match json_type(&self.model, &ty) {
                Some(json_type) if !seen.contains(&json_type) => seen.push(json_type),
                _ => return place.misfit(Problem::Ambiguous),
            }
            types.push(ty);
        }
        Ok(types)
    }

    fn object(&mut self, schema: &Schema, place: &Place) -> Result<Object, Misfit> {
        if schema.contains_key("patternProperties") {
            return place.misfit(Problem::Map);
        }
        if ["allOf", "anyOf", "$ref"].iter().any(|key| schema.contains_key(*key)) {
            return place.misfit(Problem::Flattened);
        }
        let mut object = Object {
            members: self.members(schema, None, place)?,
            union: None,
            open: is_open(schema, place)?,
        };
        let tag = match array(schema, "oneOf") {
            Some(variants) => Some(self.union(&mut object, schema, variants, place)?),
            None => None,
        };
        object.members = in_order(schema, ORDER, object.members, |member| &member.name, place)?;
        if let (Some(union), Some(tag)) = (&mut object.union, tag) {
            let position = object.members.iter().position(|member| member.name == tag);
            union.tag = position.unwrap_or_default();
        }
        self.check_clashes(&object, place)?;
        object.members.shrink_to_fit();
        Ok(object)
    }

    fn members(
        &mut self,
        schema: &Schema,
        tag: Option<&str>,
        place: &Place,
    ) -> Result<Vec<Member>, Misfit> {
        let required: HashSet<&str> = array(schema, "required")
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut members = Vec::new();
        for (name, schema) in properties(schema) {
            if Some(name.as_str()) == tag {
                continue;
            }
            let place = place.member(name);
            refuse_name(name, is_name(name), &place)?;
            let (present, nullable) = without_null(schema);
            let attributes = schema.as_object();
            members.push(Member {
                name: name.clone(),
                ty: self.type_ref(&present, &place)?,
                optional: nullable || !required.contains(name.as_str()),
                nullable,
                features: match attributes {
                    Some(schema) => features(schema, &place)?,
                    None => Vec::new(),
                },
                doc: attributes.and_then(doc),
            });
        }
        Ok(members)
    }

    /// Adds the tag and the variants, and returns the tag's name.
    fn union<'s>(
        &mut self,
        object: &mut Object,
        schema: &Schema,
        variants: &'s [Value],
        place: &Place,
    ) -> Result<&'s str, Misfit> {
        let Some((tag, _)) = variants.first().and_then(Value::as_object).and_then(tag) else {
            return place.misfit(Problem::ExternallyTagged);
        };
        refuse_name(tag, is_name(tag), place)?;
        let mut values = Vec::new();
        let mut cases = Vec::new();
        for variant in variants {
            let Some(variant) = variant.as_object() else {
                return place.misfit(Problem::Unsupported(variant.to_string()));
            };
            let Some((_, value)) = self::tag(variant).filter(|(name, _)| *name == tag) else {
                return place.misfit(Problem::ExternallyTagged);
            };
            let place = place.member(value);
            refuse_name(value, is_value(value), &place)?;
            self.refuse_unchecked(variant, &place)?;
            values.push(EnumValue {
                name: value.to_owned(),
                features: features(variant, &place)?,
                doc: doc(variant),
            });
            cases.push(Case { value: value.to_owned(), ty: self.branch(variant, tag, &place)? });
        }
        let name = match schema.get(TAG_TYPE) {
            None => format!("{}Kind", place.name),
            Some(Value::String(name)) => name.clone(),
            Some(_) => return place.misfit(Problem::Attribute(TAG_TYPE)),
        };
        let tag_type = self.add(Definition {
            name,
            doc: None,
            features: Vec::new(),
            kind: Kind::Enum(in_order(schema, TAG_ORDER, values, |value| &value.name, place)?),
        });
        object.members.insert(
            0,
            Member {
                name: tag.to_owned(),
                ty: TypeRef::Named(tag_type),
                optional: false,
                nullable: false,
                features: Vec::new(),
                doc: None,
            },
        );
        object.union = Some(Union { tag: 0, cases });
        Ok(tag)
    }

    /// What a variant has beside the tag.
    fn branch(
        &mut self,
        variant: &Schema,
        tag: &str,
        place: &Place,
    ) -> Result<Option<TypeRef>, Misfit> {
        let variant = &*with_variants(variant);
        if ["oneOf", "anyOf", "allOf"].iter().any(|key| variant.contains_key(*key)) {
            return self.flattened_branch(variant, tag, place);
        }
        let open = is_open(variant, place)?;
        let members = self.members(variant, Some(tag), place)?;
        if let Some(target) = variant.get("$ref").and_then(Value::as_str) {
            let ty = self.reference(target, place)?;
            if !members.is_empty() {
                return place.misfit(Problem::Flattened);
            }
            return match self.model.object(&ty) {
                Some(_) => Ok(Some(ty)),
                None => place.misfit(Problem::NotAnObject),
            };
        }
        if members.is_empty() && !open {
            return Ok(None);
        }
        let members = in_order(variant, ORDER, members, |member| &member.name, place)?;
        let object = Object { members, union: None, open };
        Ok(Some(TypeRef::Named(self.add(Definition {
            name: place.name.clone(),
            doc: doc(variant),
            features: Vec::new(),
            kind: Kind::Object(object),
        }))))
    }

    /// A variant with another tagged enum in it, not by reference.
    fn flattened_branch(
        &mut self,
        variant: &Schema,
        tag: &str,
        place: &Place,
    ) -> Result<Option<TypeRef>, Misfit> {
        let mut rest = variant.clone();
        if let Some(Value::Object(properties)) = rest.get_mut("properties") {
            properties.shift_remove(tag);
        }
        let index = self.add(Definition {
            name: place.name.clone(),
            doc: doc(variant),
            features: Vec::new(),
            kind: Kind::Object(Object::default()),
        });
        self.model.definitions[index].kind = Kind::Object(self.object(&rest, place)?);
        Ok(Some(TypeRef::Named(index)))
    }

    /// Members of the same name, of which serde would see one only.
    fn check_clashes(&self, object: &Object, place: &Place) -> Result<(), Misfit> {
        fn check<'m>(
            model: &'m Model,
            object: &'m Object,
            seen: &[&'m str],
            depth: usize,
        ) -> Result<(), &'m str> {
            let mut seen = seen.to_vec();
            for member in &object.members {
                if seen.contains(&member.name.as_str()) {
                    return Err(&member.name);
                }
                seen.push(&member.name);
            }
            // A union that is its own branch clashes at the first round already.
            if depth > 16 {
                return Ok(());
            }
            let cases = object.union.iter().flat_map(|union| &union.cases);
            for branch in cases.filter_map(|case| model.object(case.ty.as_ref()?)) {
                check(model, branch, &seen, depth + 1)?;
            }
            Ok(())
        }
        match check(&self.model, object, &[], 0) {
            Ok(()) => Ok(()),
            Err(name) => place.misfit(Problem::Clash(name.to_owned())),
        }
    }

    /// A type that has no name in QAPI, or a builtin one.
    fn anonymous(&mut self, schema: &Schema, place: &Place) -> Result<TypeRef, Misfit> {
        let unsupported = || Problem::Unsupported(Value::Object(schema.clone()).to_string());
        let Some(ty) = schema.get("type") else {
            return if has_shape(schema) {
                place.misfit(unsupported())
            } else {
                Ok(TypeRef::Builtin(Builtin::Any))
            };
        };
        let Some(ty) = ty.as_str() else {
            return place.misfit(match without_null(&Value::Object(schema.clone())) {
                (_, true) => Problem::Nullable,
                (_, false) => unsupported(),
            });
        };
        Ok(TypeRef::Builtin(match ty {
            "string" => Builtin::Str(scalar::length(schema)),
            "integer" => Builtin::Int(scalar::integer(schema, place)?),
            "number" => Builtin::Number,
            "boolean" => Builtin::Bool,
            "null" => Builtin::Null,
            "array" => {
                if is_fixed(schema) {
                    return place.misfit(Problem::Tuple);
                }
                self.refuse_unchecked(schema, place)?;
                let element = match schema.get("items") {
                    Some(items) if without_null(items).1 => {
                        return place.misfit(Problem::Nullable);
                    }
                    Some(items) => self.type_ref(items, place)?,
                    None => TypeRef::Builtin(Builtin::Any),
                };
                return Ok(TypeRef::Array(Box::new(element)));
            }
            _ => return place.misfit(unsupported()),
        }))
    }
}
