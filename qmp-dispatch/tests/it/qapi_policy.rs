// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a policy makes of what is deprecated or unstable. The texts are QEMU's 10.0, with
//! `-compat deprecated-input=reject,unstable-input=reject`.

#![allow(dead_code, deprecated)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use qmp_dispatch::qapi::{
    Arguments, CommandInfo, EventInfo, InputPolicy, Introspection, OutputPolicy, Policy,
    SchemaInfo, Type, arguments_of, type_of,
};
use qmp_proto::{Json, Object};
use schemars::JsonSchema;
use serde::Serialize;

const REJECT: Policy = Policy {
    deprecated_input: InputPolicy::Reject,
    unstable_input: InputPolicy::Reject,
    deprecated_output: OutputPolicy::Accept,
    unstable_output: OutputPolicy::Accept,
};
const HIDE: Policy = Policy {
    deprecated_input: InputPolicy::Accept,
    unstable_input: InputPolicy::Accept,
    deprecated_output: OutputPolicy::Hide,
    unstable_output: OutputPolicy::Hide,
};

#[derive(JsonSchema)]
struct BlockdevOpenTray {
    #[deprecated]
    device: Option<String>,
    id: Option<String>,
    force: Option<bool>,
}

#[derive(JsonSchema)]
struct MigrateSetCapabilities {
    capabilities: Vec<MigrationCapabilityStatus>,
}

#[derive(JsonSchema)]
struct MigrationCapabilityStatus {
    capability: MigrationCapability,
    state: bool,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum MigrationCapability {
    Xbzrle,
    #[deprecated]
    ZeroBlocks,
    #[schemars(extend("x-qapi-features" = ["unstable"]))]
    XColo,
}

#[derive(JsonSchema)]
#[serde(tag = "driver", rename_all = "kebab-case")]
enum BlockdevOptions {
    File {
        filename: String,
        #[schemars(extend("x-qapi-features" = ["unstable"]))]
        #[serde(rename = "x-check-cache-dropped")]
        x_check_cache_dropped: Option<bool>,
    },
    #[deprecated]
    Gluster { volume: String },
}

#[derive(JsonSchema)]
struct Mandatory {
    #[deprecated]
    old: String,
    #[deprecated]
    #[schemars(extend("x-qapi-features" = ["unstable"]))]
    both: Option<String>,
}

fn check(arguments: &Arguments, policy: &Policy, json: &str) -> String {
    let object: Object = serde_json::from_str(json).unwrap();
    match arguments.check_with(policy, &object) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.desc.into_owned(),
    }
}

#[track_caller]
fn assert_rejects<T: JsonSchema>(rows: &[(&str, &str)]) {
    let arguments = arguments_of::<T>().unwrap();
    for (json, expected) in rows {
        assert_eq!(check(&arguments, &REJECT, json), *expected, "{json}");
    }
}

#[test]
fn members_are_rejected_before_their_type_is_checked() {
    let rejected = "Deprecated parameter device disabled by policy";
    assert_rejects::<BlockdevOpenTray>(&[
        (r#"{"id": "a"}"#, "ok"),
        (r#"{"device": "a"}"#, rejected),
        (r#"{"device": 1}"#, rejected),
        (r#"{"force": 1, "device": "a"}"#, rejected),
        (r#"{"bad": 1, "device": "a"}"#, rejected),
        (r#"{"force": 1}"#, "Invalid parameter type for 'force', expected: boolean"),
    ]);
}

#[test]
fn a_mandatory_member_is_rejected_even_if_it_is_missing() {
    assert_rejects::<Mandatory>(&[("{}", "Deprecated parameter old disabled by policy")]);
}

#[test]
fn values_are_rejected_after_their_type_was_checked() {
    assert_rejects::<MigrateSetCapabilities>(&[
        (r#"{"capabilities": [{"capability": "xbzrle", "state": true}]}"#, "ok"),
        (
            r#"{"capabilities": [{"capability": "x-colo", "state": true}]}"#,
            "Unstable value x-colo disabled by policy",
        ),
        (
            r#"{"capabilities": [{"capability": "zero-blocks"}]}"#,
            "Deprecated value zero-blocks disabled by policy",
        ),
        (
            r#"{"capabilities": [{"capability": "no"}]}"#,
            "Parameter 'capability' does not accept value 'no'",
        ),
    ]);
}

#[test]
fn tags_and_variants_are_no_exception() {
    assert_rejects::<BlockdevOptions>(&[
        (r#"{"driver": "file", "filename": "a"}"#, "ok"),
        (
            r#"{"driver": "file", "filename": "a", "x-check-cache-dropped": 1}"#,
            "Unstable parameter x-check-cache-dropped disabled by policy",
        ),
        (r#"{"driver": "gluster"}"#, "Deprecated value gluster disabled by policy"),
    ]);
}

#[test]
fn each_feature_has_its_own_policy_and_deprecation_comes_first() {
    let arguments = arguments_of::<Mandatory>().unwrap();
    let json = r#"{"old": "a", "both": "b"}"#;
    assert_eq!(check(&arguments, &Policy::default(), json), "ok");
    assert_eq!(check(&arguments, &HIDE, json), "ok");
    let unstable = Policy { unstable_input: InputPolicy::Reject, ..Policy::default() };
    assert_eq!(check(&arguments, &unstable, json), "Unstable parameter both disabled by policy");
    let both = ["unstable", "deprecated"];
    let refused = REJECT.check_command("x-old", &both).unwrap_err();
    assert_eq!(refused.to_string(), "CommandNotFound: Deprecated command x-old disabled by policy");
    assert!(REJECT.check_command("x-old", &["other"]).is_ok());
}

/// Runs itself in another process, which is to end.
#[test]
fn crash_ends_the_process() {
    const IS_CHILD: &str = "QAPI_POLICY_CRASHES";
    let policy = Policy { deprecated_input: InputPolicy::Crash, ..Policy::default() };
    let check_old = || policy.check_command("old", &["deprecated"]);
    if std::env::var_os(IS_CHILD).is_some() {
        return check_old().unwrap();
    }
    assert!(policy.check_command("new", &["unstable"]).is_ok());
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "qapi_policy::crash_ends_the_process"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap()
        .status;
    assert!(status.signal().is_some(), "{status}");
}

#[test]
fn events_are_hidden() {
    for features in [&[][..], &["other"]] {
        assert!(HIDE.shows_event(features));
    }
    for features in [&["deprecated"], &["unstable"]] {
        assert!(!HIDE.shows_event(features));
        assert!(REJECT.shows_event(features));
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Report {
    Plain(Inner),
    Nested {
        inner: Vec<Inner>,
        #[schemars(extend("x-qapi-features" = ["unstable"]))]
        extra: u8,
    },
}

#[derive(Serialize, JsonSchema)]
struct Inner {
    name: String,
    #[deprecated]
    old: f64,
}

#[test]
fn members_of_results_are_hidden_at_any_depth() {
    let inner = || Inner { name: "a".to_owned(), old: 0.5 };
    let reports = [Report::Plain(inner()), Report::Nested { inner: vec![inner()], extra: 1 }];
    let ty = type_of::<Vec<Report>>().unwrap();
    let json = Json::encode(&reports).unwrap();
    assert_eq!(ty.shown(&REJECT, json.clone()), json);
    assert_eq!(
        ty.shown(&HIDE, json.clone()).to_value(),
        Json::encode(&serde_json::json!([
            {"kind": "plain", "name": "a"},
            {"kind": "nested", "inner": [{"name": "a"}]},
        ]))
        .unwrap()
        .to_value()
    );
    let deprecated = Policy { deprecated_output: OutputPolicy::Hide, ..Policy::default() };
    assert!(ty.shown(&deprecated, json).as_str().contains("extra"));
}

fn introspect(policy: Policy) -> String {
    let mut introspection = Introspection::new();
    introspection.unmasked(true).policy(policy);
    let features = |feature: &str| vec![feature.to_owned()];
    for (name, features) in
        [("stays", vec![]), ("old", features("deprecated")), ("x-new", features("unstable"))]
    {
        let arguments = arguments_of::<MigrateSetCapabilities>().unwrap();
        let result = type_of::<Inner>().unwrap();
        let mut command = CommandInfo::new(name, &arguments, &result);
        command.features = &features;
        introspection.command(&command);
        let (name, data) = (name.to_uppercase(), Type::empty());
        let mut event = EventInfo::new(&name, &data);
        event.features = &features;
        introspection.event(&event);
    }
    let schema = introspection.to_json();
    let ty = type_of::<Vec<SchemaInfo>>().unwrap();
    ty.shown(&policy, schema).as_str().to_owned()
}

#[test]
fn introspection_hides_what_qemu_hides() {
    let all = introspect(REJECT);
    let shown = introspect(HIDE);
    for gone in [
        r#""name": "old""#,
        r#""name": "OLD""#,
        r#""values": ["#,
        r#""features": ["deprecated"]}], "meta-type": "object""#,
    ] {
        assert!(all.contains(gone) && !shown.contains(gone), "{gone}");
    }
    for kept in [
        r#""name": "x-new""#,
        r#""name": "X-NEW""#,
        r#"{"name": "zero-blocks", "features": ["deprecated"]}"#,
    ] {
        assert!(all.contains(kept) && shown.contains(kept), "{kept}");
    }
}
