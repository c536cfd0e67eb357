// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is logged of panics. By itself, as there is one log in a process.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qmp_dispatch::proto::{Error, Json};
use qmp_dispatch::{Call, Context, Interceptor, LocalClient, Registry};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stumbling;

impl Interceptor for Stumbling {
    fn after(&self, _: &Call<'_>, _: &mut Result<Json, Error>, _: Duration) {
        panic!("stumbled");
    }
}

#[test]
fn a_panic_is_logged_with_its_place() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mut registry = Registry::new();
    registry.intercept(Stumbling);
    let line = line!() + 1;
    let panics = |_: &Context| -> Result<(), Error> { panic!("because of {}", 1) };
    registry.command("x-panic", panics).unwrap();
    LocalClient::new(registry).ask("{'execute': 'x-panic'}");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let handler = log.lines().find(|line| line.contains("handler panicked")).unwrap();
    assert!(handler.contains(r#"command="x-panic" reason="because of 1""#), "{log}");
    assert!(handler.contains(&format!("{}:{line}:", file!())), "{log}");
    let interceptor = log.lines().find(|line| line.contains("an interceptor panicked")).unwrap();
    assert!(interceptor.contains("stumbled") && interceptor.contains(file!()), "{log}");
}
