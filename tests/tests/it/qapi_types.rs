// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the real QAPI schema with the types of the crate `qapi` on both ends: the client sends the type that the
//! handler takes. The crate's types implement serde's traits, but not the one for introspection. So their QAPI types are taken
//! from QEMU's own introspection, and checks, error texts and the order of members are QEMU's, too. Introspection does not
//! have the width of integers: one that does not fit is refused with serde's message.

use std::borrow::Cow;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use qapi::qmp::{
    AddfdInfo, RebootAction, RunState, StatusInfo, YankInstance, YankInstanceChardev, add_fd,
    query_status, query_yank, set_action, yank,
};
use qapi::{Command, Empty, ExecuteError, Qmp, Stream};
use qmp_dispatch::proto::{Error, ErrorClass, Version, VersionTriple};
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Server, system_time};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::schema;
use tests::server::{Client, LIMIT};

/// What QEMU 10.0 says of some commands, and of their types.
const LINES: &str = include_str!("../../schema/qemu-10.0.jsonl");

/// The same by name.
static RECORDED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let entries = LINES.lines().map(|line| serde_json::from_str(line).expect("an entry"));
    entries.map(|entry: Value| (text(&entry["name"]).to_owned(), entry)).collect()
});

/// The arguments of a command.
#[derive(Deserialize)]
#[serde(transparent)]
struct Arguments<C>(C);

/// The result of a command.
#[derive(Serialize)]
#[serde(transparent)]
struct Returned<C: Command>(C::Ok)
where
    C::Ok: Serialize;

impl<C: Command> JsonSchema for Arguments<C> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}-arg", C::NAME).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of(&RECORDED[C::NAME]["arg-type"], generator)
    }
}

impl<C: Command> JsonSchema for Returned<C>
where
    C::Ok: Serialize,
{
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}-ret", C::NAME).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of(&RECORDED[C::NAME]["ret-type"], generator)
    }
}

/// The JSON Schema of a type that has this name in QEMU's schema, which may refer to all others.
fn schema_of(name: &Value, generator: &mut SchemaGenerator) -> Schema {
    let named = RECORDED.values().filter_map(|entry| {
        let definition = match text(&entry["meta-type"]) {
            "enum" => json!({"type": "string", "enum": entry["values"]}),
            "object" => object(entry),
            _ => return None,
        };
        Some((text(&entry["name"]).to_owned(), definition))
    });
    generator.definitions_mut().extend(named);
    use_of(name).try_into().expect("a schema")
}

fn use_of(name: &Value) -> Value {
    let entry = &RECORDED[text(name)];
    match &entry["json-type"] {
        Value::String(ty) if ty == "int" => json!({"type": "integer", "format": "int64"}),
        Value::String(ty) if ty == "value" => json!({}),
        Value::String(ty) => json!({"type": ty}),
        _ if entry["meta-type"] == "array" => {
            json!({"type": "array", "items": use_of(&entry["element-type"])})
        }
        _ => json!({"$ref": format!("#/$defs/{}", text(name))}),
    }
}

fn object(entry: &Value) -> Value {
    let tag = entry["tag"].as_str();
    let members = entry["members"].as_array().into_iter().flatten();
    let members: Vec<_> = members.filter(|member| member["name"].as_str() != tag).collect();
    let property = |member: &&Value| (text(&member["name"]).to_owned(), use_of(&member["type"]));
    let required = members.iter().filter(|member| member.get("default").is_none());
    let mut schema = json!({
        "type": "object",
        "properties": Value::Object(members.iter().map(property).collect()),
        "required": required.map(|member| member["name"].clone()).collect::<Value>(),
    });
    if let (Some(tag), Some(variants)) = (tag, entry["variants"].as_array()) {
        let variant = |variant: &Value| {
            let mut schema = json!({
                "type": "object",
                "properties": {tag: {"type": "string", "const": variant["case"]}},
                "required": [tag],
            });
            let has_members = RECORDED[text(&variant["type"])]["members"] != json!([]);
            if has_members {
                schema["$ref"] = use_of(&variant["type"])["$ref"].clone();
            }
            schema
        };
        schema["oneOf"] = variants.iter().map(variant).collect();
    }
    schema
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Registers a function from the command's type to the type of its result.
fn serve<C>(
    registry: &mut Registry,
    run: impl Fn(C) -> Result<C::Ok, Error> + Send + Sync + 'static,
) where
    C: Command + for<'de> Deserialize<'de> + 'static,
    C::Ok: Serialize + 'static,
{
    let handler =
        move |_: &Context, Arguments(command): Arguments<C>| run(command).map(Returned::<C>);
    let registered = registry.command(C::NAME, handler).expect("a new command of good types");
    if C::ALLOW_OOB {
        registered.allow_oob();
    }
}

fn registry() -> Registry {
    let shuts_down = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&shuts_down);
    let mut registry = Registry::new();
    serve(&mut registry, move |action: set_action| {
        set.store(action.reboot == Some(RebootAction::shutdown), Ordering::Relaxed);
        Ok(Empty {})
    });
    serve(&mut registry, move |_: query_status| {
        let status = match shuts_down.load(Ordering::Relaxed) {
            true => RunState::shutdown,
            false => RunState::running,
        };
        Ok(StatusInfo { running: status == RunState::running, status })
    });
    serve(&mut registry, |add: add_fd| {
        Ok(AddfdInfo { fd: 7, fdset_id: add.fdset_id.unwrap_or(0) })
    });
    serve(&mut registry, |_: query_yank| {
        Ok(vec![YankInstance::chardev(YankInstanceChardev { id: "c0".to_owned() })])
    });
    serve(&mut registry, |yank: yank| match yank.instances[..] {
        [YankInstance::migration] => Ok(Empty {}),
        _ => Err(Error::new(ErrorClass::DeviceNotFound, "Instance not found")),
    });
    registry
}

#[test]
fn commands_are_typed_on_both_ends() {
    let version =
        Version { qemu: VersionTriple { major: 0, minor: 0, micro: 1 }, package: "test".into() };
    let dispatcher = Dispatcher::new(registry(), version, system_time);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listen = format!("unix:{}", path.display()).parse().unwrap();
    let server = Server::new(dispatcher).listen(&listen).unwrap().spawn().unwrap();

    let reader = UnixStream::connect(&path).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let writer = reader.try_clone().unwrap();
    let mut client = Qmp::new(Stream::new(BufReader::new(reader), writer));
    client.handshake().unwrap();

    assert!(client.execute(&query_status {}).unwrap().running);
    let reboot = Some(RebootAction::shutdown);
    client.execute(&set_action { reboot, shutdown: None, panic: None, watchdog: None }).unwrap();
    let status = client.execute(&query_status {}).unwrap();
    assert!(!status.running && status.status == RunState::shutdown);
    let info = client.execute(&add_fd { fdset_id: Some(3), opaque: None }).unwrap();
    assert_eq!((info.fdset_id, info.fd), (3, 7));
    let instances = client.execute(&query_yank {}).unwrap();
    assert!(matches!(&instances[..], [YankInstance::chardev(chardev)] if chardev.id == "c0"));
    client.execute(&yank { instances: vec![YankInstance::migration] }).unwrap();
    match client.execute(&yank { instances }) {
        Err(ExecuteError::Qapi(error)) => assert_eq!(error.desc, "Instance not found"),
        other => panic!("not an error response: {other:?}"),
    }

    let mut client = Client::connect(&Endpoint::Unix(path));
    client.negotiate("{}");
    let wrong = [
        (
            "add-fd",
            r#"{"fdset-id": "3"}"#,
            "Invalid parameter type for 'fdset-id', expected: integer",
        ),
        (
            "set-action",
            r#"{"panic": "no", "reboot": 1}"#,
            "Invalid parameter type for 'reboot', expected: string",
        ),
        (
            "yank",
            r#"{"instances": [{"type": "chardev"}]}"#,
            "Parameter 'instances[0].id' is missing",
        ),
    ];
    for (command, arguments, expected) in wrong {
        client.send(&format!(r#"{{"execute": "{command}", "arguments": {arguments}}}"#));
        let reply = client.receive();
        let said = reply.get("error").and_then(|error| error.get("desc")).and_then(Json::as_str);
        assert_eq!(said, Some(expected), "{command}");
    }

    let ours = schema::Schema::new(&client.execute("query-qmp-schema"));
    let qemus = schema::Schema::parse(LINES);
    assert_eq!(ours.excerpt(&ours.entities()), qemus.excerpt(&ours.entities()));
    server.control().shutdown();
    server.wait();
}
