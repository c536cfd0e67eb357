// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is logged of panics. By itself, as there is one log in a process.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use qmp_dispatch::proto::{Error, Json};
use qmp_dispatch::{
    Call, Context, Interceptor, LocalClient, Registry, Responder, install_panic_hook,
};

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
fn a_panic_is_logged_once_with_its_place_and_answered_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    install_panic_hook();
    let mut registry = Registry::new();
    registry.intercept(Stumbling);
    let line = line!() + 1;
    let panics = |_: &Context| -> Result<(), Error> { panic!("because of {}", 1) };
    registry.command("x-panic", panics).unwrap();
    let kept = Arc::new(Mutex::new(None));
    let handed_over = Arc::clone(&kept);
    registry
        .deferred_command("x-dropped", |_: &Context, _: Responder<()>| panic!("it is dropped"))
        .unwrap();
    registry
        .deferred_command("x-kept", move |_: &Context, responder: Responder<()>| {
            *handed_over.lock().unwrap() = Some(responder);
            panic!("it is kept");
        })
        .unwrap();
    registry
        .deferred_command("x-thread", |_: &Context, responder: Responder<()>| {
            let panics = move || {
                let _responder = responder;
                panic!("in a thread");
            };
            thread::spawn(panics).join().unwrap_err();
        })
        .unwrap();
    let client = LocalClient::new(registry);
    client.ask("{'execute': 'x-panic'}");
    for command in ["x-dropped", "x-kept", "x-thread"] {
        let said = client.ask(&format!("{{'execute': '{command}'}}"));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(&format!("The command {command} failed: internal error")));
    }
    kept.lock().unwrap().take().unwrap().respond(Ok::<_, Error>(()));
    assert!(client.ask("").is_empty(), "one answer is enough");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let handler = log.lines().find(|line| line.contains("handler panicked")).unwrap();
    assert!(handler.contains(r#"command="x-panic" reason="because of 1""#), "{log}");
    assert!(handler.contains(&format!("{}:{line}:", file!())), "{log}");
    for command in ["x-dropped", "x-kept", "x-thread"] {
        let of_command = format!("command=\"{command}\"");
        let told = log.lines().filter(|line| line.contains("ERROR") && line.contains(&of_command));
        assert_eq!(told.count(), 1, "{log}");
    }
    let interceptor = log.lines().find(|line| line.contains("an interceptor panicked")).unwrap();
    assert!(interceptor.contains("stumbled") && interceptor.contains(file!()), "{log}");
}
