// SPDX-License-Identifier: MIT OR Apache-2.0
//! The schema of a real QEMU, taken apart, made into types and put together again.
//!
//! Needs QEMU 10.0, which `cargo xtask oracles` unpacks. Without it, the tests are skipped, unless `CI=true` is set.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use qmp_dispatch::qapi::{
    Arguments, CommandInfo, EventInfo, InputPolicy, Introspection, OutputPolicy, Policy,
    SchemaInfo, Type, arguments_of, type_of,
};
use qmp_proto::Value as QmpValue;
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// The emulator of QEMU 10.0: in the directory that `QMP_QEMU_10_0` names, or else in Cargo's target directory.
fn emulator() -> Option<PathBuf> {
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let programs = std::env::var_os("QMP_QEMU_10_0")
        .map_or_else(|| target.join("oracles/qemu-10.0/bin"), PathBuf::from);
    let program = programs.join("qemu-system-x86_64");
    if program.is_file() {
        return Some(program);
    }
    let advice = "QEMU 10.0 is absent: run `cargo xtask oracles`";
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "{advice}");
    eprintln!("skipped, {advice}");
    None
}

/// A QEMU without a machine, on its standard input and output.
struct Qemu {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Qemu {
    fn start(emulator: &Path, policy: &str) -> Qemu {
        let mut process = Command::new(emulator)
            .args(["-machine", "none", "-nodefaults", "-nographic", "-S", "-qmp", "stdio"])
            .args(["-compat", policy])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 starts");
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut qemu = Qemu { process, output };
        qemu.line();
        qemu.execute("qmp_capabilities", &json!({}));
        qemu
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.process.stdin.as_mut().unwrap(), "{request}").unwrap();
        loop {
            let line = self.line();
            if line.get("event").is_none() {
                return line;
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The entries of `query-qmp-schema`.
struct Entries {
    all: Vec<Value>,
    by_name: HashMap<String, Value>,
}

impl Entries {
    fn query(qemu: &mut Qemu) -> Entries {
        let reply = qemu.execute("query-qmp-schema", &json!({}));
        let all = reply["return"].as_array().unwrap().clone();
        let by_name =
            all.iter().map(|entry| (text(&entry["name"]).to_owned(), entry.clone())).collect();
        Entries { all, by_name }
    }

    /// The schemas that schemars would make of these types.
    fn definitions(&self) -> Map<String, Value> {
        self.all
            .iter()
            .filter_map(|entry| Some((text(&entry["name"]).to_owned(), self.definition(entry)?)))
            .collect()
    }

    fn definition(&self, entry: &Value) -> Option<Value> {
        let members = entry["members"].as_array();
        let mut schema = match text(&entry["meta-type"]) {
            "enum" => {
                let values = members.unwrap().iter().map(|value| {
                    with_features(json!({"type": "string", "const": value["name"]}), value)
                });
                json!({"oneOf": values.collect::<Value>()})
            }
            "alternate" => {
                let branches = members.unwrap().iter().map(|branch| use_of(&branch["type"]));
                json!({"anyOf": branches.collect::<Value>()})
            }
            "object" => self.object(entry),
            _ => return None,
        };
        schema = with_features(schema, entry);
        Some(schema)
    }

    fn object(&self, entry: &Value) -> Value {
        let tag = entry.get("tag");
        let mut properties = Map::new();
        let mut required = Vec::new();
        let mut order = Vec::new();
        let mut schema = json!({"type": "object"});
        for member in entry["members"].as_array().unwrap() {
            let name = text(&member["name"]);
            order.push(name);
            if tag == Some(&member["name"]) {
                schema["x-qapi-tag-type"] = member["type"].clone();
                schema["oneOf"] = self.variants(entry, text(&member["type"]));
                continue;
            }
            if member.get("default").is_none() {
                required.push(name);
            }
            properties.insert(name.to_owned(), with_features(use_of(&member["type"]), member));
        }
        schema["properties"] = properties.into();
        schema["required"] = required.into();
        if tag.is_some() {
            schema["x-qapi-order"] = order.into();
        }
        schema
    }

    fn variants(&self, entry: &Value, tag_type: &str) -> Value {
        let tag = text(&entry["tag"]);
        let variants = entry["variants"].as_array().unwrap().iter().map(|variant| {
            let mut schema = json!({
                "type": "object",
                "properties": {tag: {"type": "string", "const": variant["case"]}},
                "required": [tag],
            });
            if variant["type"] != "0" {
                schema["$ref"] = use_of(&variant["type"])["$ref"].clone();
            }
            let values = self.by_name[tag_type]["members"].as_array().unwrap();
            let value = values.iter().find(|value| value["name"] == variant["case"]).unwrap();
            with_features(schema, value)
        });
        variants.collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn with_features(mut schema: Value, entry: &Value) -> Value {
    if let Some(features) = entry.get("features") {
        if schema == true {
            schema = json!({});
        }
        schema["x-qapi-features"] = features.clone();
    }
    schema
}

fn use_of(name: &Value) -> Value {
    match text(name) {
        "str" => json!({"type": "string"}),
        "int" => json!({"type": "integer", "format": "int64"}),
        "number" => json!({"type": "number", "format": "double"}),
        "bool" => json!({"type": "boolean"}),
        "null" => json!({"type": "null"}),
        "any" => json!(true),
        name => match name.strip_prefix('[') {
            Some(element) => {
                let element = element.strip_suffix(']').unwrap();
                json!({"type": "array", "items": use_of(&element.into())})
            }
            None => json!({"$ref": format!("#/$defs/{name}")}),
        },
    }
}

thread_local! {
    /// The type that [`Dynamic`] stands for, and the definitions that it refers to.
    static DYNAMIC: RefCell<(Value, Map<String, Value>)> = RefCell::default();
}

/// Whatever type is set.
struct Dynamic;

impl JsonSchema for Dynamic {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Dynamic".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        DYNAMIC.with_borrow(|(schema, definitions)| {
            generator.definitions_mut().extend(referred(schema, definitions));
            schema.clone().try_into().unwrap()
        })
    }
}

/// The definitions that a schema refers to, and those that they refer to. All of them for each command would be a million.
fn referred(schema: &Value, definitions: &Map<String, Value>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut rest = vec![schema];
    while let Some(schema) = rest.pop() {
        match schema {
            Value::Array(elements) => rest.extend(elements),
            Value::Object(members) => {
                rest.extend(members.values());
                let names = ["$ref", "x-qapi-tag-type"].map(|key| members.get(key));
                for name in names.into_iter().flatten().map(text) {
                    let name = name.strip_prefix("#/$defs/").unwrap_or(name);
                    if let Some(definition) = definitions.get(name)
                        && !found.contains_key(name)
                    {
                        found.insert(name.to_owned(), definition.clone());
                        rest.push(definition);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn arguments(name: &Value) -> Arguments {
    if name == "0" {
        return Arguments::none();
    }
    DYNAMIC.with_borrow_mut(|(schema, _)| *schema = use_of(name));
    arguments_of::<Dynamic>().unwrap()
}

fn result(name: &Value) -> Type {
    if name == "0" {
        return Type::empty();
    }
    DYNAMIC.with_borrow_mut(|(schema, _)| *schema = use_of(name));
    type_of::<Dynamic>().unwrap()
}

/// As in the entry, but enums in alphabetical order: theirs is that of the variants for us.
fn canonical(entry: &Value) -> Value {
    let mut entry = entry.clone();
    if entry["meta-type"] == "enum" {
        for key in ["members", "values"] {
            if let Some(Value::Array(values)) = entry.get_mut(key) {
                values.sort_by_key(ToString::to_string);
            }
        }
    }
    entry
}

fn features(entry: &Value) -> Vec<String> {
    match entry.get("features") {
        Some(features) => serde_json::from_value(features.clone()).unwrap(),
        None => Vec::new(),
    }
}

fn introspect(entries: &Entries, unmasked: bool, policy: Policy) -> Vec<Value> {
    let mut introspection = Introspection::new();
    introspection.unmasked(unmasked).policy(policy);
    for entry in &entries.all {
        let name = text(&entry["name"]);
        let features = features(entry);
        match text(&entry["meta-type"]) {
            "command" => {
                let arguments = arguments(&entry["arg-type"]);
                let result = result(&entry["ret-type"]);
                let mut command = CommandInfo::new(name, &arguments, &result);
                command.allow_oob = entry.get("allow-oob").is_some();
                command.features = &features;
                introspection.command(&command);
            }
            "event" => {
                let data = result(&entry["arg-type"]);
                let mut event = EventInfo::new(name, &data);
                event.features = &features;
                introspection.event(&event);
            }
            _ => {}
        }
    }
    let schema = introspection.to_json();
    let schema = type_of::<Vec<SchemaInfo>>().unwrap().shown(&policy, schema);
    serde_json::from_str(schema.as_str().replace("q_empty", "0").as_str()).unwrap()
}

/// Numbers go up by one where they are used for the first time.
fn assert_numbers_by_first_use(entries: &[Value]) {
    let mut next = 0;
    for entry in entries {
        let keys = ["name", "arg-type", "ret-type", "element-type"];
        let used =
            ["members", "variants"].iter().filter_map(|key| entry[*key].as_array()).flatten();
        let names = keys.iter().map(|key| &entry[*key]).chain(used.map(|member| &member["type"]));
        for name in names.filter_map(Value::as_str) {
            let number = name.trim_matches(['[', ']']).parse().unwrap_or(0);
            assert!(number <= next, "{entry}");
            next = next.max(number + 1);
        }
    }
}

#[test]
fn the_schema_of_qemu_is_written_as_qemu_writes_it() {
    check_schema("deprecated-input=accept", Policy::default());
}

#[test]
fn what_qemu_hides_is_hidden() {
    use OutputPolicy::Hide;
    let deprecated = Policy { deprecated_output: Hide, ..Policy::default() };
    let unstable = Policy { unstable_output: Hide, ..Policy::default() };
    check_schema("deprecated-output=hide", deprecated);
    check_schema("unstable-output=hide", unstable);
}

/// Names are compared, too: without masking, ours are those numbers that QEMU uses. It skips some,
/// of types that it is built without.
fn check_schema(compat: &str, policy: Policy) {
    let Some(emulator) = emulator() else { return };
    let entries = Entries::query(&mut Qemu::start(&emulator, "deprecated-input=accept"));
    DYNAMIC.with_borrow_mut(|(_, definitions)| *definitions = entries.definitions());
    let mut ours = introspect(&entries, true, policy);
    let mut theirs = Entries::query(&mut Qemu::start(&emulator, compat)).all;
    // QEMU lists some types that are only used by what it is built without.
    let names: HashSet<&Value> = ours.iter().map(|entry| &entry["name"]).collect();
    theirs.retain(|entry| names.contains(&entry["name"]));
    assert!(entries.all.len() - theirs.len() < 20);
    // Such a command, or a hidden one, may have been the first to use a type, so that QEMU lists it
    // earlier.
    let in_place = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours["name"] == theirs["name"]);
    assert!(in_place.count() > theirs.len() / 2 || policy.deprecated_output == OutputPolicy::Hide);
    let by_name = |entry: &Value| text(&entry["name"]).to_owned();
    ours.sort_by_key(by_name);
    theirs.sort_by_key(by_name);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(canonical(ours), canonical(theirs));
        assert_eq!(keys(ours), keys(theirs));
    }
    assert_eq!(ours.len(), theirs.len());
    assert_numbers_by_first_use(&introspect(&entries, false, policy));
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

/// Makes arguments that are mostly right, and sometimes wrong in every possible way.
struct Generator<'a> {
    entries: &'a Entries,
    state: u64,
}

impl Generator<'_> {
    /// One of `n`.
    fn one_of(&mut self, n: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % n as u64) as usize
    }

    fn name(&mut self) -> String {
        const NAMES: [&str; 12] =
            ["a", "b", "id", "x-y", "type", "driver", "é", "", "node-name", "size", "\0", "data"];
        match self.one_of(3) {
            0 => format!("extra{}", self.one_of(1000)),
            _ => NAMES[self.one_of(NAMES.len())].to_owned(),
        }
    }

    fn any(&mut self) -> Value {
        let values = [
            json!(null),
            json!(true),
            json!(1),
            json!(1.5),
            json!("x"),
            json!([]),
            json!({}),
            json!([1]),
            json!({"a": 1}),
        ];
        values[self.one_of(values.len())].clone()
    }

    fn value(&mut self, ty: &Value, depth: usize) -> Value {
        if depth > 6 || self.one_of(12) == 0 {
            return self.any();
        }
        match text(ty) {
            "str" => json!(format!("text{}", self.one_of(10))),
            "int" => json!(self.one_of(100)),
            "number" => json!(0.5),
            "bool" => json!(self.one_of(2) == 0),
            "null" => json!(null),
            "any" => self.any(),
            name => {
                let entry = &self.entries.by_name[name];
                match text(&entry["meta-type"]) {
                    "enum" => {
                        let values = entry["values"].as_array().unwrap();
                        values[self.one_of(values.len())].clone()
                    }
                    "array" => (0..self.one_of(3))
                        .map(|_| self.value(&entry["element-type"], depth + 1))
                        .collect(),
                    "alternate" => {
                        let branches = entry["members"].as_array().unwrap();
                        let branch = &branches[self.one_of(branches.len())];
                        self.value(&branch["type"], depth + 1)
                    }
                    _ => self.object(entry, depth).into(),
                }
            }
        }
    }

    fn object(&mut self, entry: &Value, depth: usize) -> Map<String, Value> {
        let mut object = Map::new();
        if self.one_of(8) == 0 {
            for _ in 0..self.one_of(4) {
                object.insert(self.name(), self.any());
            }
        }
        for member in entry["members"].as_array().unwrap() {
            let skipped = if member.get("default").is_some() { 2 } else { 25 };
            if self.one_of(skipped) != 0 || skipped == 2 && self.one_of(4) == 0 {
                let value = self.value(&member["type"], depth + 1);
                object.insert(text(&member["name"]).to_owned(), value);
            }
        }
        if let Some(tag) = entry.get("tag") {
            let case = object.get(text(tag)).cloned().unwrap_or_default();
            let variants = entry["variants"].as_array().unwrap();
            if let Some(variant) = variants.iter().find(|variant| variant["case"] == case) {
                let branch = &self.entries.by_name[text(&variant["type"])];
                let mut branch = self.object(branch, depth);
                object.append(&mut branch);
            }
        }
        object
    }
}

/// What was wrong with an integer depends on its width, which a schema does not tell.
fn comparable(description: &str) -> String {
    let unsigned = description.strip_suffix(" expects uint64");
    match unsigned.and_then(|text| text.strip_prefix("Parameter ")) {
        Some(name) => format!("Invalid parameter type for {name}, expected: integer"),
        None => description.to_owned(),
    }
}

/// Names of types in errors are those of QEMU's source, while the schema has numbers.
fn without_type_name(description: &str) -> &str {
    match description.split_once(", expected: ") {
        Some((text, ty)) if ty.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()) => {
            text
        }
        _ => description,
    }
}

#[test]
fn wrong_arguments_are_refused_in_the_words_of_qemu() {
    check_refusals("deprecated-input=accept", Policy::default());
}

#[test]
fn what_the_policy_rejects_is_refused_in_the_words_of_qemu() {
    let policy = Policy {
        deprecated_input: InputPolicy::Reject,
        unstable_input: InputPolicy::Reject,
        ..Policy::default()
    };
    check_refusals("deprecated-input=reject,unstable-input=reject", policy);
}

fn check_refusals(compat: &str, policy: Policy) {
    let Some(emulator) = emulator() else { return };
    let mut qemu = Qemu::start(&emulator, compat);
    let entries = Entries::query(&mut qemu);
    DYNAMIC.with_borrow_mut(|(_, definitions)| *definitions = entries.definitions());
    // Not checked by generated code, or not available.
    let special = ["device_add", "qmp_capabilities"];
    let commands: Vec<(&str, &Value, Arguments, Vec<String>)> = entries
        .all
        .iter()
        .filter(|entry| entry["meta-type"] == "command" && entry["arg-type"] != "0")
        .map(|entry| {
            let arguments = arguments(&entry["arg-type"]);
            (text(&entry["name"]), &entry["arg-type"], arguments, features(entry))
        })
        .filter(|(name, ..)| !special.contains(name))
        .collect();
    let rounds = std::env::var("QAPI_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5000);
    let mut generator = Generator { entries: &entries, state: 0x9E37_79B9_7F4A_7C15 };
    let mut kinds = BTreeMap::new();
    for round in 0..rounds {
        let (name, ty, arguments, features) = &commands[generator.one_of(commands.len())];
        let mut object = generator.object(&entries.by_name[text(ty)], 0);
        // Whatever else is right, the command is not executed.
        let count = if round % 10 == 0 { generator.one_of(100) } else { generator.one_of(5) };
        for _ in 0..=count {
            object.insert(format!("more{}", generator.one_of(10000)), json!(null));
        }
        let object = Value::from(object);
        let reply = qemu.execute(name, &object);
        let theirs = comparable(reply["error"]["desc"].as_str().expect("an error"));
        let ours: QmpValue = serde_json::from_value(object.clone()).unwrap();
        let ours = policy
            .check_command(name, features)
            .and_then(|()| arguments.check_with(&policy, ours.as_object().unwrap()))
            .expect_err("an error");
        let ours = comparable(&ours.desc);
        assert_eq!(without_type_name(&ours), without_type_name(&theirs), "{name} {object}");
        let kind: String = match ours.split_once(" disabled by policy") {
            Some((kind, _)) => kind.split_whitespace().take(2).collect(),
            None => ours.split('\'').step_by(2).collect(),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    println!("{kinds:#?}");
}
