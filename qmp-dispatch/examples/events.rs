// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events: declared once, emitted by a handler, or from any other thread.

use std::thread;
use std::time::Duration;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, EmitError, EventType, LocalClient, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Serialize;

const POWERDOWN: EventType<()> = EventType::new("POWERDOWN");

const DEVICE_TRAY_MOVED: EventType<TrayMoved> = EventType::new("DEVICE_TRAY_MOVED");

#[derive(Serialize, JsonSchema)]
struct TrayMoved {
    device: &'static str,
    #[serde(rename = "tray-open")]
    tray_open: bool,
}

fn system_powerdown(context: &Context) -> Result<(), EmitError> {
    context.emit(&POWERDOWN, &())
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.event(&POWERDOWN)?;
    // At most one per second and device.
    registry
        .event(&DEVICE_TRAY_MOVED)?
        .unstable()
        .at_most_every(Duration::from_secs(1))
        .similar_by(|moved| moved.device.to_owned());
    registry.command("system_powerdown", system_powerdown)?;
    registry.command("x-rattle", rattle)?;
    Ok(registry)
}

/// Two drives, of which one does not come to rest.
fn rattle(context: &Context) -> Result<(), Error> {
    let dispatcher = context.dispatcher().clone();
    let drives = thread::spawn(move || {
        for (device, tray_open) in [("cd0", true), ("cd0", false), ("cd1", true)] {
            dispatcher.emit(&DEVICE_TRAY_MOVED, &TrayMoved { device, tray_open })?;
        }
        Ok::<(), EmitError>(())
    });
    Ok(drives.join().expect("no panic")?)
}

const SESSION: &str = "{'execute': 'system_powerdown'} {'execute': 'x-rattle'}";

fn main() -> Result<(), RegisterError> {
    let client = LocalClient::new(registry()?);
    client.ask(SESSION).iter().for_each(|line| println!("{line}"));
    Ok(())
}

#[test]
fn events_precede_the_response_and_keep_to_their_limit() {
    let said = LocalClient::new(registry().unwrap()).ask(SESSION);
    assert!(said[0].contains(r#""event": "POWERDOWN"}"#), "{}", said[0]);
    assert_eq!(said[1], r#"{"return": {}}"#);
    assert!(said[2].contains(r#"{"device": "cd0", "tray-open": true}"#), "{}", said[2]);
    assert!(said[3].contains(r#"{"device": "cd1", "tray-open": true}"#), "{}", said[3]);
    assert_eq!(said[4], r#"{"return": {}}"#);
    assert_eq!(said.len(), 5, "what is held back comes after a second");
}
