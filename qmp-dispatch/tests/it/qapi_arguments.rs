// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said about wrong arguments, and what is done with right ones. The texts are QEMU's
//! 10.0, recorded with the commands that the types here are the arguments of.

use std::num::NonZeroU8;

use qmp_dispatch::qapi::{Arguments, arguments_of, present};
use qmp_proto::{Error, Object, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn object(json: &str) -> Object {
    serde_json::from_str(json).expect("an object")
}

/// Checks arguments in JSON; the description of the error, or `ok`.
fn check(arguments: &Arguments, json: &str) -> String {
    match arguments.check(&object(json)) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.desc.into_owned(),
    }
}

#[track_caller]
fn assert_checks<T: JsonSchema>(rows: &[(&str, &str)]) {
    let arguments = arguments_of::<T>().unwrap();
    for (json, expected) in rows {
        assert_eq!(check(&arguments, json), *expected, "{json}");
    }
}

fn decode<T: JsonSchema + DeserializeOwned>(json: &str) -> Result<T, Error> {
    arguments_of::<T>().unwrap().decode(object(json))
}

#[derive(Deserialize, JsonSchema)]
struct Closefd {
    #[allow(dead_code)]
    fdname: String,
}

#[test]
fn strings() {
    assert_checks::<Closefd>(&[
        ("{}", "Parameter 'fdname' is missing"),
        (r#"{"fdname": null}"#, "Invalid parameter type for 'fdname', expected: string"),
        (r#"{"fdname": ["a"]}"#, "Invalid parameter type for 'fdname', expected: string"),
        (r#"{"fd-name": "x"}"#, "Parameter 'fdname' is missing"),
        (r#"{"fdname": "x", "foo": 1}"#, "Parameter 'foo' is unexpected"),
        (r#"{"fdname": "x\u0000y"}"#, "ok"),
    ]);
}

#[test]
fn no_arguments() {
    assert_checks::<()>(&[
        ("{}", "ok"),
        (r#"{"a\u0000b": 1}"#, "Parameter 'a\0b' is unexpected"),
        (r#"{"": 1}"#, "Parameter '' is unexpected"),
        (r#"{"é": 1}"#, "Parameter 'é' is unexpected"),
        (r#"{"a.b": 1}"#, "Parameter 'a.b' is unexpected"),
        (r#"{"x": {"y": [1, 2]}}"#, "Parameter 'x' is unexpected"),
    ]);
    assert_eq!(decode::<()>("{}"), Ok(()));
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct RemoveFd {
    fdset_id: i64,
    fd: Option<i64>,
}

#[test]
fn integers() {
    let wrong = "Invalid parameter type for 'fdset-id', expected: integer";
    let wrong_fd = "Invalid parameter type for 'fd', expected: integer";
    assert_checks::<RemoveFd>(&[
        ("{}", "Parameter 'fdset-id' is missing"),
        (r#"{"fdset-id": "1"}"#, wrong),
        (r#"{"fdset-id": null}"#, wrong),
        (r#"{"fdset-id": 1.5}"#, wrong),
        (r#"{"fdset-id": 1.0}"#, wrong),
        (r#"{"fdset-id": [1]}"#, wrong),
        (r#"{"fdset-id": {"a": 1}}"#, wrong),
        (r#"{"fdset-id": ""}"#, wrong),
        (r#"{"fdset-id": 9223372036854775807}"#, "ok"),
        (r#"{"fdset-id": 9223372036854775808}"#, wrong),
        (r#"{"fdset-id": -9223372036854775808}"#, "ok"),
        (r#"{"fdset_id": 1}"#, "Parameter 'fdset-id' is missing"),
        (r#"{"fdset-id": 1, "fdset_id": 1}"#, "Parameter 'fdset_id' is unexpected"),
        (r#"{"fdset-id": 1, "fd": null}"#, wrong_fd),
        (r#"{"fdset-id": 1, "fd": 1e2}"#, wrong_fd),
        (r#"{"fd": 1}"#, "Parameter 'fdset-id' is missing"),
        (r#"{"fd": "x", "fdset-id": "y"}"#, wrong),
    ]);
    assert_eq!(decode(r#"{"fdset-id": 1}"#), Ok(RemoveFd { fdset_id: 1, fd: None }));
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
struct Widths {
    i8: i8,
    i16: i16,
    i32: i32,
    u8: u8,
    u16: u16,
    u32: u32,
    u64: u64,
    usize: usize,
    nonzero: Option<NonZeroU8>,
    list: Vec<u32>,
}

#[test]
fn widths_of_integers() {
    assert_checks::<Widths>(&[
        ("{}", "ok"),
        (r#"{"i8": -128}"#, "ok"),
        (r#"{"i8": -129}"#, "Parameter 'i8' expects int8_t"),
        (r#"{"i8": 128}"#, "Parameter 'i8' expects int8_t"),
        (r#"{"i8": "x"}"#, "Invalid parameter type for 'i8', expected: integer"),
        (r#"{"i8": 9223372036854775808}"#, "Invalid parameter type for 'i8', expected: integer"),
        (r#"{"i16": 32768}"#, "Parameter 'i16' expects int16_t"),
        (r#"{"i32": 2147483648}"#, "Parameter 'i32' expects int32_t"),
        (r#"{"u8": 256}"#, "Parameter 'u8' expects uint8_t"),
        (r#"{"u8": -1}"#, "Parameter 'u8' expects uint8_t"),
        (r#"{"u8": 18446744073709551615}"#, "Parameter 'u8' expects uint8_t"),
        (r#"{"u8": 18446744073709551616}"#, "Parameter 'u8' expects uint64"),
        (r#"{"u8": 1.0}"#, "Parameter 'u8' expects uint64"),
        (r#"{"u8": null}"#, "Parameter 'u8' expects uint64"),
        (r#"{"u16": 65536}"#, "Parameter 'u16' expects uint16_t"),
        (r#"{"u32": 4294967296}"#, "Parameter 'u32' expects uint32_t"),
        (r#"{"u64": 18446744073709551615}"#, "ok"),
        (r#"{"u64": -1}"#, "ok"),
        (r#"{"u64": -9223372036854775808}"#, "ok"),
        (r#"{"u64": -9223372036854775809}"#, "Parameter 'u64' expects uint64"),
        (r#"{"usize": 1e2}"#, "Parameter 'usize' expects uint64"),
        (r#"{"nonzero": 0}"#, "Parameter 'nonzero' expects an integer in the range of 1 to 255"),
        (r#"{"list": [1, -1]}"#, "Parameter 'null' expects uint32_t"),
        (r#"{"list": [1, "x"]}"#, "Parameter 'list[1]' expects uint64"),
    ]);
}

#[test]
fn negative_numbers_stand_for_large_unsigned_ones() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Nested {
        inner: Inner,
        list: Vec<u64>,
        signed: i64,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "lowercase")]
    enum Inner {
        Size { size: u64 },
    }
    let nested: Nested =
        decode(r#"{"inner": {"type": "size", "size": -1}, "list": [1, -2], "signed": -3}"#)
            .unwrap();
    let expected =
        Nested { inner: Inner::Size { size: u64::MAX }, list: vec![1, u64::MAX - 1], signed: -3 };
    assert_eq!(nested, expected);
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
struct AddFd {
    fdset_id: Option<i64>,
    opaque: Option<String>,
}

#[test]
fn optional_members_are_checked_in_order() {
    assert_checks::<AddFd>(&[
        ("{}", "ok"),
        (r#"{"opaque": 1}"#, "Invalid parameter type for 'opaque', expected: string"),
        (r#"{"opaque": null}"#, "Invalid parameter type for 'opaque', expected: string"),
        (
            r#"{"opaque": 1, "fdset-id": "x"}"#,
            "Invalid parameter type for 'fdset-id', expected: integer",
        ),
        (r#"{"x": 1}"#, "Parameter 'x' is unexpected"),
    ]);
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
struct TraceEventSetState {
    name: String,
    enable: bool,
    ignore_unavailable: Option<bool>,
}

#[test]
fn booleans() {
    let wrong = "Invalid parameter type for 'enable', expected: boolean";
    assert_checks::<TraceEventSetState>(&[
        (r#"{"name": "x"}"#, "Parameter 'enable' is missing"),
        (r#"{"name": "x", "enable": 0}"#, wrong),
        (r#"{"name": "x", "enable": "true"}"#, wrong),
        (r#"{"name": "x", "enable": []}"#, wrong),
        (r#"{"name": "x", "enable": {}}"#, wrong),
        (r#"{"name": "x", "enable": "on"}"#, wrong),
        (
            r#"{"name": "x", "enable": true, "ignore-unavailable": 1}"#,
            "Invalid parameter type for 'ignore-unavailable', expected: boolean",
        ),
        (r#"{"enable": 1, "name": 2}"#, "Invalid parameter type for 'name', expected: string"),
    ]);
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct WatchdogSetAction {
    action: WatchdogAction,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WatchdogAction {
    Reset,
    Shutdown,
    /// Documented, and so described apart from the others.
    InjectNmi,
}

#[test]
fn enums() {
    let wrong = "Invalid parameter type for 'action', expected: string";
    assert_checks::<WatchdogSetAction>(&[
        ("{}", "Parameter 'action' is missing"),
        (r#"{"action": null}"#, wrong),
        (r#"{"action": ["reset"]}"#, wrong),
        (r#"{"action": {"reset": 1}}"#, wrong),
        (r#"{"action": "explode"}"#, "Parameter 'action' does not accept value 'explode'"),
        (r#"{"action": ""}"#, "Parameter 'action' does not accept value ''"),
        (r#"{"action": "RESET"}"#, "Parameter 'action' does not accept value 'RESET'"),
        (r#"{"action": "reset "}"#, "Parameter 'action' does not accept value 'reset '"),
        (r#"{"action": "inject_nmi"}"#, "Parameter 'action' does not accept value 'inject_nmi'"),
        (r#"{"action": "reset\u0000"}"#, "Parameter 'action' does not accept value 'reset\0'"),
        (r#"{"action": "it's"}"#, "Parameter 'action' does not accept value 'it's'"),
        (r#"{"action": "rese"}"#, "Parameter 'action' does not accept value 'rese'"),
        (r#"{"action": "reset"}"#, "ok"),
        (r#"{"action": "shutdown"}"#, "ok"),
        (r#"{"action": "inject-nmi"}"#, "ok"),
    ]);
    let decoded = decode::<WatchdogSetAction>(r#"{"action": "inject-nmi"}"#).unwrap();
    assert_eq!(decoded.action, WatchdogAction::InjectNmi);
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct SetAction {
    reboot: Option<RebootAction>,
    panic: Option<RebootAction>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RebootAction {
    Reset,
    Shutdown,
}

#[test]
fn of_names_that_collide_the_first_one_sent_is_named() {
    let arguments = arguments_of::<()>().unwrap();
    // Each is one of 4,096 ways to write the same hash: in base 33, "aB" and "b!" are one number.
    let name = |n: usize| (0..12).map(move |bit| ["aB", "b!"][n >> bit & 1]).collect::<String>();
    let object: Object = (0..4096).map(|n| (name(4095 - n), 1)).collect();
    let refused = arguments.check(&object).unwrap_err();
    assert_eq!(refused.desc, format!("Parameter '{}' is unexpected", name(4095)));
}

#[test]
fn unexpected_members() {
    assert_checks::<SetAction>(&[
        (r#"{"extra": 1, "panic": "x"}"#, "Parameter 'panic' does not accept value 'x'"),
        (r#"{"extra": 1}"#, "Parameter 'extra' is unexpected"),
        (r#"{"extra": 1, "other": 2}"#, "Parameter 'other' is unexpected"),
        (r#"{"other": 2, "extra": 1}"#, "Parameter 'other' is unexpected"),
        (r#"{"a": 1, "b": 2, "c": 3, "d": 4}"#, "Parameter 'b' is unexpected"),
        (
            r#"{"arg0": 0, "arg1": 1, "arg2": 2, "arg3": 3, "arg4": 4,
                "arg5": 5, "arg6": 6, "arg7": 7, "arg8": 8, "arg9": 9}"#,
            "Parameter 'arg0' is unexpected",
        ),
    ]);
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Yank {
    instances: Vec<YankInstance>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum YankInstance {
    #[serde(rename_all = "kebab-case")]
    BlockNode {
        node_name: String,
    },
    Chardev(Chardev),
    Migration,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Chardev {
    id: String,
}

#[test]
fn arrays_and_unions() {
    let array = "Invalid parameter type for 'instances', expected: array";
    let object = "Invalid parameter type for 'instances[0]', expected: object";
    assert_checks::<Yank>(&[
        (r#"{"instances": {}}"#, array),
        (r#"{"instances": true}"#, array),
        (r#"{"instances": []}"#, "ok"),
        (r#"{"instances": [1]}"#, object),
        (r#"{"instances": [null]}"#, object),
        (r#"{"instances": [[]]}"#, object),
        (
            r#"{"instances": [{"type": "chardev", "id": "x"}, 2]}"#,
            "Invalid parameter type for 'instances[1]', expected: object",
        ),
        (r#"{"instances": [{}]}"#, "Parameter 'instances[0].type' is missing"),
        (r#"{"instances": [{"id": "x"}]}"#, "Parameter 'instances[0].type' is missing"),
        (
            r#"{"instances": [{"type": 1}]}"#,
            "Invalid parameter type for 'instances[0].type', expected: string",
        ),
        (r#"{"instances": [{"type": "foo"}]}"#, "Parameter 'type' does not accept value 'foo'"),
        (r#"{"instances": [{"type": "chardev"}]}"#, "Parameter 'instances[0].id' is missing"),
        (
            r#"{"instances": [{"type": "chardev", "id": "x"}, {"type": "chardev", "id": null}]}"#,
            "Invalid parameter type for 'instances[1].id', expected: string",
        ),
        (
            r#"{"instances": [{"type": "chardev", "id": "x", "node-name": "y"}]}"#,
            "Parameter 'instances[0].node-name' is unexpected",
        ),
        (
            r#"{"instances": [{"type": "block-node", "id": "x"}]}"#,
            "Parameter 'instances[0].node-name' is missing",
        ),
        (
            r#"{"instances": [{"type": "migration"}, {"type": "migration", "foo": 1}]}"#,
            "Parameter 'instances[1].foo' is unexpected",
        ),
        (r#"{"foo": 1, "instances": [{}]}"#, "Parameter 'instances[0].type' is missing"),
        (r#"{"instances": [], "foo": 1}"#, "Parameter 'foo' is unexpected"),
    ]);
    let yank: Yank = decode(
        r#"{"instances": [{"id": "x", "type": "chardev"}, {"type": "migration"},
                          {"type": "block-node", "node-name": "n"}]}"#,
    )
    .unwrap();
    let expected = [
        YankInstance::Chardev(Chardev { id: "x".to_owned() }),
        YankInstance::Migration,
        YankInstance::BlockNode { node_name: "n".to_owned() },
    ];
    assert_eq!(yank.instances, expected);
}

/// Refers to itself by way of an alternate, and has a base and a tag.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct BlockdevOptions {
    node_name: Option<String>,
    #[serde(flatten)]
    driver: Driver,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "driver", rename_all = "kebab-case")]
enum Driver {
    File {
        filename: String,
    },
    Raw {
        file: BlockdevRef,
    },
    Qcow2 {
        file: BlockdevRef,
        #[serde(default, deserialize_with = "present")]
        #[schemars(with = "BlockdevRefOrNull")]
        backing: Option<BlockdevRefOrNull>,
    },
    Quorum {
        children: Vec<BlockdevRef>,
    },
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum BlockdevRef {
    Definition(Box<BlockdevOptions>),
    Reference(String),
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum BlockdevRefOrNull {
    Definition(Box<BlockdevOptions>),
    Reference(String),
    Null(()),
}

#[test]
fn alternates_and_recursion() {
    let backing =
        |value: &str| format!(r#"{{"driver": "qcow2", "file": "x", "backing": {value}}}"#);
    assert_checks::<BlockdevOptions>(&[
        ("{}", "Parameter 'driver' is missing"),
        (r#"{"node-name": 1}"#, "Parameter 'driver' is missing"),
        (
            r#"{"node-name": 1, "driver": "file"}"#,
            "Invalid parameter type for 'node-name', expected: string",
        ),
        (r#"{"driver": "x"}"#, "Parameter 'driver' does not accept value 'x'"),
        (r#"{"driver": "raw"}"#, "Parameter 'file' is missing"),
        (
            r#"{"driver": "raw", "file": 1}"#,
            "Invalid parameter type for 'file', expected: BlockdevRef",
        ),
        (
            r#"{"driver": "quorum", "children": ["x", null]}"#,
            "Invalid parameter type for 'null', expected: BlockdevRef",
        ),
        (r#"{"driver": "raw", "file": {}}"#, "Parameter 'file.driver' is missing"),
        (
            r#"{"driver": "quorum", "children": ["x", {"driver": "file", "filename": 1}]}"#,
            "Invalid parameter type for 'children[1].filename', expected: string",
        ),
        (
            r#"{"driver": "raw", "file": {"driver": "file", "filename": "a", "zz": 1}}"#,
            "Parameter 'file.zz' is unexpected",
        ),
        (
            r#"{"driver": "raw", "file": {"driver": "raw", "file": {"driver": "zz"}}}"#,
            "Parameter 'driver' does not accept value 'zz'",
        ),
        (&backing("null"), "ok"),
        (&backing(r#""node""#), "ok"),
        (&backing("1"), "Invalid parameter type for 'backing', expected: BlockdevRefOrNull"),
    ]);
    let options: BlockdevOptions =
        decode(r#"{"driver": "raw", "file": {"driver": "file", "filename": "f"}}"#).unwrap();
    let file = Driver::File { filename: "f".to_owned() };
    let file = Box::new(BlockdevOptions { node_name: None, driver: file });
    assert_eq!(options.driver, Driver::Raw { file: BlockdevRef::Definition(file) });
}

#[test]
fn a_union_can_be_the_arguments() {
    assert_checks::<YankInstance>(&[
        ("{}", "Parameter 'type' is missing"),
        (r#"{"type": "chardev"}"#, "Parameter 'id' is missing"),
        (r#"{"type": "chardev", "id": "x"}"#, "ok"),
    ]);
}

#[test]
fn the_tag_comes_first_unless_the_order_is_given() {
    #[derive(Deserialize, JsonSchema)]
    #[schemars(extend("x-qapi-order" = ["id", "type"]))]
    #[allow(dead_code)]
    struct Netdev {
        id: String,
        #[serde(flatten)]
        backend: Backend,
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "type", rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Backend {
        None,
        User { restrict: Option<bool> },
    }
    assert_checks::<Netdev>(&[
        (r#"{"type": 1}"#, "Parameter 'id' is missing"),
        (r#"{"id": 1, "type": "x"}"#, "Invalid parameter type for 'id', expected: string"),
        (r#"{"id": "a", "type": "none", "restrict": true}"#, "Parameter 'restrict' is unexpected"),
        (r#"{"id": "a", "type": "user", "restrict": true}"#, "ok"),
    ]);
}

#[test]
fn flattened_bases_stand_where_they_are_declared() {
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Base {
        id: String,
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Device {
        #[serde(flatten)]
        base: Base,
        size: i64,
    }
    assert_checks::<Device>(&[
        ("{}", "Parameter 'id' is missing"),
        (r#"{"id": "x"}"#, "Parameter 'size' is missing"),
        (r#"{"id": "x", "size": 1}"#, "ok"),
        (r#"{"id": "x", "size": 1, "base": 1}"#, "Parameter 'base' is unexpected"),
    ]);
}

#[test]
fn any_value_and_open_objects() {
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct QomSet {
        value: serde_json::Value,
        #[schemars(with = "Option<serde_json::Value>")]
        other: Option<Value>,
    }
    assert_checks::<QomSet>(&[
        ("{}", "Parameter 'value' is missing"),
        (r#"{"value": null}"#, "ok"),
        (r#"{"value": {"a": [1.5, null]}, "other": []}"#, "ok"),
    ]);

    #[derive(Debug, Deserialize, JsonSchema)]
    struct DeviceAdd {
        driver: String,
        #[serde(flatten)]
        properties: serde_json::Map<String, serde_json::Value>,
    }
    assert_checks::<DeviceAdd>(&[
        (r#"{"x": 1}"#, "Parameter 'driver' is missing"),
        (r#"{"driver": "virtio", "x": 1, "y": {}}"#, "ok"),
    ]);
    let device: DeviceAdd = decode(r#"{"driver": "virtio", "x": 1}"#).unwrap();
    assert_eq!(device.driver, "virtio");
    assert_eq!(device.properties["x"], 1);
}

#[test]
fn numbers_and_null() {
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Numbers {
        number: f64,
        single: Option<f32>,
        null: Option<OnlyNull>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct OnlyNull(());
    assert_checks::<Numbers>(&[
        (r#"{"number": 1}"#, "ok"),
        (r#"{"number": 18446744073709551615, "single": 1.5}"#, "ok"),
        (r#"{"number": "1"}"#, "Invalid parameter type for 'number', expected: number"),
        (r#"{"number": 1, "null": 0}"#, "Invalid parameter type for 'null', expected: null"),
        (r#"{"number": 1, "null": null}"#, "ok"),
    ]);
    assert!(decode::<Numbers>(r#"{"number": 1, "single": 2, "null": null}"#).is_ok());
}

/// So many objects and arrays in each other, in a member of the arguments.
fn nested(depth: usize, around: impl Fn(Value) -> Value) -> Object {
    let innermost = Value::from(Object::new());
    let value = (2..depth).fold(innermost, |inner, _| around(inner));
    Object::from_iter([("down", value)])
}

fn object_around(inner: Value) -> Value {
    Object::from_iter([("down", inner)]).into()
}

#[test]
fn arguments_are_nested_as_deep_as_the_stack_surely_allows() {
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Tree {
        down: Option<Box<Tree>>,
        list: Option<Vec<Tree>>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Anything {
        down: serde_json::Value,
    }
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Others {
        #[serde(flatten)]
        others: serde_json::Map<String, serde_json::Value>,
    }
    fn decoded<T: JsonSchema + DeserializeOwned>(arguments: Object) -> String {
        let decoded = arguments_of::<T>().unwrap().decode::<T>(arguments);
        decoded.map_or_else(|error| error.desc.into_owned(), |_| "ok".to_owned())
    }
    for depth in [3, 128] {
        assert_eq!(decoded::<Tree>(nested(depth, object_around)), "ok");
        assert_eq!(decoded::<Anything>(nested(depth, object_around)), "ok");
        assert_eq!(decoded::<Others>(nested(depth, object_around)), "ok");
    }
    let in_lists = |inner| Value::Array(vec![inner]);
    let in_list = |inner| Object::from_iter([("list", Value::Array(vec![inner]))]).into();
    assert_eq!(decoded::<Anything>(nested(128, in_lists)), "ok");
    for depth in [129, 1024] {
        let deep = "Parameter 'down' is nested too deeply";
        assert_eq!(decoded::<Anything>(nested(depth, object_around)), deep);
        assert_eq!(decoded::<Anything>(nested(depth, in_lists)), deep);
        assert_eq!(decoded::<Others>(nested(depth, object_around)), deep);
        let way = ["down"; 128].join(".");
        let deep = format!("Parameter '{way}' is nested too deeply");
        assert_eq!(decoded::<Tree>(nested(depth, object_around)), deep);
        let answer = decoded::<Tree>(nested(depth, in_list));
        assert!(answer.starts_with("Parameter 'down.list[0].list[0]."), "{answer}");
        assert!(answer.ends_with("is nested too deeply"), "{answer}");
    }
}
