// SPDX-License-Identifier: MIT OR Apache-2.0
//! Methods as commands, in a program that knows `qmp_dispatch` by this crate's name for it.

use std::sync::Arc;

use qmp_server::dispatch::{LocalClient, Registry, qmp_commands};

struct Lamp;

#[qmp_commands(crate = qmp_server::dispatch)]
impl Lamp {
    #[qmp]
    fn x_dim(&self, percent: u8, slowly: Option<bool>) -> u8 {
        if slowly == Some(true) { percent / 2 } else { percent }
    }
}

#[test]
fn a_method_is_a_command() {
    let mut registry = Registry::new();
    Arc::new(Lamp).register(&mut registry).unwrap();
    let dim = "{'execute': 'x-dim', 'arguments': {'percent': 40, 'slowly': true}}";
    assert_eq!(LocalClient::new(registry).ask(dim), [r#"{"return": 20}"#]);
}
