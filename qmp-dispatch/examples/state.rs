// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands are plain functions, of some state that they share.

use std::sync::{Arc, Mutex};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, LocalClient, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Balloon {
    target: Mutex<i64>,
}

#[derive(Deserialize, JsonSchema)]
struct Inflate {
    value: i64,
}

#[derive(Serialize, JsonSchema)]
struct BalloonInfo {
    actual: i64,
}

impl Balloon {
    fn balloon(&self, _: &Context, new: Inflate) -> Result<(), Error> {
        if new.value <= 0 {
            return Err(Error::generic("Parameter 'value' expects a size"));
        }
        *self.target.lock().unwrap() = new.value;
        Ok(())
    }

    fn query_balloon(&self, _: &Context) -> Result<BalloonInfo, Error> {
        Ok(BalloonInfo { actual: *self.target.lock().unwrap() })
    }
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    let mut balloon = registry.with(Arc::new(Balloon::default()));
    balloon.command("balloon", Balloon::balloon)?;
    balloon.command("query-balloon", Balloon::query_balloon)?;
    Ok(registry)
}

const SESSION: &str = "
    {'execute': 'balloon', 'arguments': {'value': 1073741824}}
    {'execute': 'balloon', 'arguments': {'value': '1G'}}
    {'execute': 'query-balloon'}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn what_one_command_sets_the_other_one_shows() {
    let said = LocalClient::new(registry().unwrap()).ask(SESSION);
    assert_eq!(said[0], r#"{"return": {}}"#);
    assert!(
        said[1].contains("Invalid parameter type for 'value', expected: integer"),
        "{}",
        said[1]
    );
    assert_eq!(said[2], r#"{"return": {"actual": 1073741824}}"#);
}
