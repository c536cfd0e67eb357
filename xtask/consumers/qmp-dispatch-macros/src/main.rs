// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lamp whose methods are commands, with the macro taken from its own crate.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qmp_dispatch::{LocalClient, Registry};
use qmp_dispatch_macros::qmp_commands;

#[derive(Default)]
struct Lamp(AtomicBool);

#[qmp_commands]
impl Lamp {
    /// Switches the lamp, and returns whether it was on.
    #[qmp(oob)]
    fn x_lamp_switch(&self, on: bool) -> bool {
        self.0.swap(on, Ordering::Relaxed)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut registry = Registry::new();
    Arc::new(Lamp::default()).register(&mut registry)?;
    let request = "{'execute': 'x-lamp-switch', 'arguments': {'on': true}}";
    let said = LocalClient::new(registry).ask(&format!("{request} {request}"));
    assert_eq!(said, [r#"{"return": false}"#, r#"{"return": true}"#]);
    Ok(())
}
