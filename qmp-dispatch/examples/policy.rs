// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is deprecated is rejected and hidden, to find out who still relies on it.

use qmp_dispatch::proto::Error;
use qmp_dispatch::qapi::{InputPolicy, OutputPolicy, Policy};
use qmp_dispatch::{Context, LocalClient, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Eject {
    #[deprecated]
    device: Option<String>,
    id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct CpuInfo {
    #[deprecated]
    arch: &'static str,
    thread: u32,
}

#[allow(deprecated)]
fn eject(_: &Context, arguments: Eject) -> Result<(), Error> {
    match arguments.id.or(arguments.device) {
        Some(_) => Ok(()),
        None => Err(Error::generic("Parameter 'id' is missing")),
    }
}

#[allow(deprecated)]
fn query_cpus(_: &Context) -> Result<CpuInfo, Error> {
    Ok(CpuInfo { arch: "x86", thread: 7 })
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.command("eject", eject)?;
    registry.command("query-cpus", query_cpus)?;
    registry.command("cpu-add", |_: &Context| Ok::<(), Error>(()))?.deprecated();
    registry.set_policy(Policy {
        deprecated_input: InputPolicy::Reject,
        deprecated_output: OutputPolicy::Hide,
        ..Policy::default()
    });
    Ok(registry)
}

const SESSION: &str = "
    {'execute': 'eject', 'arguments': {'id': 'cd0'}}
    {'execute': 'eject', 'arguments': {'device': 'cd0'}}
    {'execute': 'cpu-add'}
    {'execute': 'query-cpus'}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn what_is_deprecated_is_rejected_and_hidden() {
    let said = LocalClient::new(registry().unwrap()).ask(SESSION);
    assert_eq!(said[0], r#"{"return": {}}"#);
    assert!(said[1].contains("Deprecated parameter device disabled by policy"), "{}", said[1]);
    assert!(said[2].contains("Deprecated command cpu-add disabled by policy"), "{}", said[2]);
    assert_eq!(said[3], r#"{"return": {"thread": 7}}"#);
}
