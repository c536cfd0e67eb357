// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is generated for small schemas. That all of it compiles, and does what it should, is tested where there are types of
//! QEMU.

use qmp_codegen::{Error, Generator};

const BUILTIN: &str = r#"
    {"name": "int", "meta-type": "builtin", "json-type": "int"}
    {"name": "str", "meta-type": "builtin", "json-type": "string"}
    {"name": "null", "meta-type": "builtin", "json-type": "null"}
    {"name": "any", "meta-type": "builtin", "json-type": "value"}
    {"name": "0", "meta-type": "object", "members": []}
"#;

/// A command of these members of its arguments, and other entries.
fn schema(members: &str, others: &str) -> String {
    format!(
        r#"{{"name": "x-set", "meta-type": "command", "arg-type": "1", "ret-type": "0"}}
        {{"name": "1", "meta-type": "object", "members": [{members}]}}
        {others}{BUILTIN}"#
    )
}

fn generate(generator: &Generator, schema: &str) -> String {
    // As rustfmt would break lines is of no interest.
    let code = generator.generate(schema).unwrap();
    code.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_has(code: &str, parts: &[&str]) {
    for part in parts {
        assert!(code.contains(part), "{part}\nis not in\n{code}");
    }
}

#[test]
fn members_have_names_and_types_of_rust() {
    let members = r#"{"name": "node-name", "type": "str"},
        {"name": "type", "type": "int", "default": null},
        {"name": "self", "type": "any", "default": null},
        {"name": "2x", "type": "[str]", "features": ["unstable"]}"#;
    let array = r#"{"name": "[str]", "meta-type": "array", "element-type": "str"}"#;
    let schema = schema(members, array);
    let code = generate(&Generator::new(), &schema);
    assert_has(
        &code,
        &[
            r#"#[serde(rename = "node-name")] pub node_name: String,"#,
            r#"pub r#type: Option<i128>,"#,
            r#"rename = "self", default, skip_serializing_if = "Option::is_none", deserialize_with = "qmp_proto::decode::present""#,
            r#"pub self_: Option<qmp_proto::Value>,"#,
            r#"#[serde(rename = "2x")] pub _2x: Vec<String>,"#,
            "pub fn new(node_name: String, _2x: Vec<String>) -> Self {",
            "type Arguments = super::XSetArguments; type Result = ();",
        ],
    );
    assert!(!code.contains("schemars"));
    let served = generate(Generator::new().served_by("server::dispatch"), &schema);
    assert_has(
        &served,
        &[
            r#"#[schemars(with = "server::dispatch::qapi::Int")] pub r#type"#,
            r#"#[schemars(with = "server::dispatch::qapi::Any")] pub self_"#,
            r#"#[schemars(extend("x-qapi-features" = ["unstable"]))] pub _2x"#,
        ],
    );
}

#[test]
fn enums_are_open() {
    let values = |second: &str| {
        let entry = format!(
            r#"{{"name": "7", "meta-type": "enum", "members": [{{"name": "a"}}, {{"name": "{second}", "features": ["f"]}}]}}"#
        );
        schema(r#"{"name": "mode", "type": "7"}"#, &entry)
    };
    let code = generate(Generator::new().served_by("d"), &values("3des"));
    assert_has(
        &code,
        &[
            r#"extend("x-qapi-order" = ["a", "3des"])"#,
            r#"pub enum XSetArgumentsMode { #[serde(rename = "a")] A, #[schemars(extend("x-qapi-features" = ["f"]))] #[serde(rename = "3des")] _3des,"#,
            "#[serde(untagged)] #[schemars(skip)] Unknown(String), }",
        ],
    );
    assert_has(&generate(&Generator::new(), &values("unknown")), &["Unrecognized(String)"]);
}

const TREE: &str = r#"
    {"name": "2", "meta-type": "alternate", "members": [{"type": "1"}, {"type": "str"}, {"type": "null"}]}
    {"name": "3", "meta-type": "alternate", "members": [{"type": "int"}, {"type": "str"}]}"#;

fn tree() -> String {
    let child = r#"{"name": "child", "type": "2", "default": null}, {"name": "size", "type": "3"}"#;
    schema(child, TREE)
}

#[test]
fn a_type_that_contains_itself_has_a_box() {
    let code = generate(&Generator::new(), &tree());
    assert_has(
        &code,
        &[
            "pub child: Option<Box<XSetArgumentsChild>>,",
            "pub enum XSetArgumentsChild { Object(XSetArguments), String(String), Null, }",
            "pub size: XSetArgumentsSize,",
            "pub enum XSetArgumentsSize { Number(i128), String(String), }",
        ],
    );
}

#[test]
fn a_qapi_schema_has_names_and_widths() {
    let qapi = "
        # A comment, with a quote's end.
        { 'command': 'x-set', 'data': 'Node' }
        { 'struct': 'Base', 'data': { 'size': 'String' } } # 'of another
        { 'struct': 'Node', 'base': 'Base',
          'data': { '*child': { 'type': 'NodeOrNull', 'if': 'CONFIG' }, 'new': 'str' } }
        { 'alternate': 'NodeOrNull', 'data': { 'definition': 'Node', 'gone': 'bool', 'id': 'str', 'none': 'null' } }
        { 'alternate': 'String', 'data': { 'text': 'str', 'bytes': 'size' } }";
    let code = generate(Generator::new().qapi(qapi), &tree());
    assert_has(
        &code,
        &[
            "pub struct Node { ",
            "pub child: Option<Box<NodeOrNull>>,",
            "pub enum NodeOrNull { Definition(Node), Id(String), None, }",
            // The name is that of a type of Rust.
            "pub size: String2,",
            "pub enum String2 { Bytes(u64), Text(String), }",
        ],
    );
}

#[test]
fn a_device_has_properties_that_are_not_listed() {
    let schema = schema(r#"{"name": "driver", "type": "str"}"#, "");
    let device = schema.replace("x-set", "device_add");
    let open = "#[serde(flatten)] pub more_: qmp_proto::Object, }";
    assert_has(&generate(&Generator::new(), &device), &[open, "new(driver: String) -> Self"]);
    assert!(!generate(&Generator::new(), &schema).contains(open));
    let qapi = "{ 'command': 'x-set', 'data': { 'driver': 'str' }, 'gen': false }";
    assert_has(&generate(Generator::new().qapi(qapi), &schema), &[open]);
}

#[test]
fn only_what_is_selected_is_generated() {
    let other = r#"{"name": "x-get", "meta-type": "command", "arg-type": "0", "ret-type": "2", "features": ["f"], "allow-oob": true}
        {"name": "DONE", "meta-type": "event", "arg-type": "0"}
        {"name": "2", "meta-type": "object", "members": [{"name": "a", "type": "int"}]}"#;
    let schema = schema("", other);
    let code = generate(Generator::new().command("x-get").event("DONE"), &schema);
    assert_has(
        &code,
        &[
            "pub struct XGetResult { pub a: i128, }",
            "/// The command `x-get`, which can be executed out of band.",
            r#"const FEATURES: &'static [&'static str] = &["f"];"#,
            "type Arguments = (); type Result = super::XGetResult;",
            r#"pub const DONE: qmp_proto::EventType<()> = qmp_proto::EventType::new("DONE");"#,
        ],
    );
    assert!(!code.contains("x-set"));
    assert_has(&generate(&Generator::new(), &schema), &["x-set", "x-get", "DONE"]);
    let missing = Generator::new().command("x-none").generate(&schema);
    assert!(matches!(missing, Err(Error::NotFound(name)) if name == "x-none"));
}

#[test]
fn a_schema_may_be_a_list_a_response_or_lines() {
    let lines = schema(r#"{"name": "a", "type": "str"}"#, "");
    // Each entry ends a line.
    let entries: Vec<_> =
        lines.split_inclusive("}\n").map(str::trim).filter(|entry| !entry.is_empty()).collect();
    let list = format!("[{}]", entries.join(","));
    let expected = generate(&Generator::new(), &lines);
    assert_eq!(generate(&Generator::new(), &list), expected);
    assert_eq!(generate(&Generator::new(), &format!("{{\"return\": {list}}}\r\n")), expected);
}

#[test]
fn what_is_no_schema_is_refused() {
    for (text, expected) in [
        ("{", "the text ends within a value"),
        ("[@]", "stray '@'"),
        ("[{}]", "no 'name'"),
        (
            r#"[{"name": "x", "meta-type": "command", "arg-type": "7", "ret-type": "7"}]"#,
            "no type is called '7'",
        ),
        (r#"[{"name": "1", "meta-type": "enum"}]"#, "no array 'values'"),
        (
            r#"[{"name": "1", "meta-type": "object", "members": [], "tag": "t"}]"#,
            "no member is the tag 't'",
        ),
    ] {
        let error = Generator::new().generate(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
