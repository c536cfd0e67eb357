// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of types, which QEMU masks.

use std::collections::{HashMap, HashSet};

use crate::ident::{camel, unique};
use crate::qapi::Known;
use crate::schema::{Id, Kind, Schema};

/// The types that are to be generated, in the order of their first use.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) order: Vec<Id>,
    pub(crate) names: HashMap<Id, String>,
    /// The names of the enums with the variants of unions whose other members make them structs.
    pub(crate) variants: HashMap<Id, String>,
}

/// Names all types that these commands and events lead to. A name is, in this order, that of the QAPI schema, that of an
/// introspection which is not masked, or comes from the first use.
pub(crate) fn name(schema: &Schema, known: &Known, commands: &[usize], events: &[usize]) -> Names {
    let mut taken = HashSet::from(PRELUDE.map(str::to_owned));
    // These keep their names, whatever is derived for others.
    let mut ids: Vec<_> = known.names.keys().copied().collect();
    ids.sort_unstable();
    let known = ids.into_iter().map(|id| (id, unique(camel(&known.names[&id]), &mut taken)));
    let known = known.collect();
    let mut namer = Namer { schema, known, found: Names::default(), taken };
    for &index in commands {
        let command = &schema.commands[index];
        let base = camel(&command.name);
        namer.visit(command.arguments, &format!("{base}Arguments"));
        namer.visit(command.result, &format!("{base}Result"));
    }
    for &index in events {
        let event = &schema.events[index];
        namer.visit(event.data, &format!("{}Data", camel(&event.name)));
    }
    namer.found
}

/// What the generated code means by these names.
const PRELUDE: [&str; 11] = [
    "Box",
    "Clone",
    "Debug",
    "Default",
    "Eq",
    "Hash",
    "Option",
    "PartialEq",
    "Result",
    "String",
    "Vec",
];

struct Namer<'s> {
    schema: &'s Schema,
    known: HashMap<Id, String>,
    found: Names,
    taken: HashSet<String>,
}

impl Namer<'_> {
    fn visit(&mut self, id: Id, use_name: &str) {
        if self.found.names.contains_key(&id) {
            return;
        }
        let ty = &self.schema.types[id];
        match &ty.kind {
            Kind::Builtin(_) => {}
            Kind::Array(element) => self.visit(*element, use_name),
            Kind::Enum(_) => _ = self.take(id, use_name),
            Kind::Alternate(branches) => {
                let name = self.take(id, use_name);
                for &branch in branches {
                    self.visit(
                        branch,
                        &format!("{name}{}", json_type(&self.schema.types[branch].kind)),
                    );
                }
            }
            Kind::Object(object) => {
                let name = self.take(id, use_name);
                if let Some(tag) = &object.tag
                    && object.members.len() > 1
                {
                    let variants = format!("{name}{}", camel(&object.members[tag.member].name));
                    self.found.variants.insert(id, unique(variants, &mut self.taken));
                }
                for member in &object.members {
                    self.visit(member.ty, &format!("{name}{}", camel(&member.name)));
                }
                for case in object.tag.iter().flat_map(|tag| &tag.cases) {
                    if !self.schema.is_empty(case.ty) {
                        self.visit(case.ty, &format!("{name}{}", camel(&case.value)));
                    }
                }
            }
        }
    }

    fn take(&mut self, id: Id, use_name: &str) -> String {
        let own = &self.schema.types[id].name;
        let name = match self.known.get(&id) {
            Some(known) => known.clone(),
            None => {
                let is_masked = own.bytes().all(|byte| byte.is_ascii_digit());
                let name = if is_masked { use_name.to_owned() } else { camel(own) };
                unique(name, &mut self.taken)
            }
        };
        self.found.order.push(id);
        self.found.names.insert(id, name.clone());
        name
    }
}

/// What a branch of an alternate is called.
pub(crate) fn json_type(kind: &Kind) -> &'static str {
    use crate::schema::Builtin;
    match kind {
        Kind::Builtin(Builtin::Str) | Kind::Enum(_) => "String",
        Kind::Builtin(Builtin::Int | Builtin::Number) => "Number",
        Kind::Builtin(Builtin::Bool) => "Bool",
        Kind::Builtin(Builtin::Null) => "Null",
        Kind::Array(_) => "Array",
        Kind::Builtin(Builtin::Any) | Kind::Object(_) | Kind::Alternate(_) => "Object",
    }
}
