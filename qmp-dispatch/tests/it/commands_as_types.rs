// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are types, served and called.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use qmp_dispatch::proto::{BoxError, Error, ErrorClass};
use qmp_dispatch::{
    CallError, CommandType, Context, EventType, LocalClient, Registry, command_types,
};
use qmp_dispatch::{RegisterError, Responder, qapi_types};

qapi_types! {
    #[derive(Debug, PartialEq, Clone)]
    struct Level {
        level: i64,
        wide_name: String,
    }
}

command_types! {
    /// Sets the level.
    ///
    /// Fails below zero.
    #[features("unstable", "x-wide")]
    SetLevel = "x-set-level"(Level);
    GetLevel = "x-get-level"() -> Level;
    /// Adds to the level.
    AddLevel = "x-add-level" {
        by: i64,
    } -> Level;
}

const LEVEL: EventType<Level> =
    EventType::new("X_LEVEL").documented("The level has changed.").with_features(&["unstable"]);

#[derive(Default)]
struct Tank(AtomicI64);

impl Tank {
    fn level(&self) -> Level {
        Level { level: self.0.load(Ordering::Relaxed), wide_name: "tank".to_owned() }
    }

    fn set(&self, context: &Context, new: Level) -> Result<(), BoxError> {
        if new.level < 0 {
            return Err(Error::new(ErrorClass::DeviceNotActive, "below zero").into());
        }
        self.0.store(new.level, Ordering::Relaxed);
        Ok(context.emit(&LEVEL, &self.level())?)
    }

    fn get(&self, _: &Context, (): ()) -> Level {
        self.level()
    }

    fn add(&self, _: &Context, AddLevel { by }: AddLevel, responder: Responder<Level>) {
        self.0.fetch_add(by, Ordering::Relaxed);
        responder.respond(Ok::<_, Error>(self.level()));
    }
}

fn registry() -> Result<Registry, RegisterError> {
    let mut registry = Registry::new();
    registry.event(&LEVEL)?;
    let mut group = registry.with(Arc::new(Tank::default()));
    group.serve::<SetLevel>(Tank::set)?;
    group.serve::<GetLevel>(Tank::get)?.allow_oob();
    group.serve_deferred::<AddLevel>(Tank::add)?;
    Ok(registry)
}

#[test]
fn one_declaration_serves_both_ends() {
    let client = LocalClient::new(registry().unwrap());
    let level = Level { level: 7, wide_name: "x".to_owned() };
    assert_eq!(client.call::<SetLevel>(&level), Ok(()));
    let tank = Level { wide_name: "tank".to_owned(), ..level };
    assert_eq!(client.events().iter().filter_map(|event| LEVEL.read(event)).next(), Some(Ok(tank)));
    assert_eq!(client.call_oob::<GetLevel>(&()).unwrap().level, 7);
    assert_eq!(client.call::<AddLevel>(&AddLevel { by: 3 }).unwrap().level, 10);
    let below = Level { level: -1, wide_name: String::new() };
    let error = Error::new(ErrorClass::DeviceNotActive, "below zero");
    assert_eq!(client.call::<SetLevel>(&below), Err(CallError::Command(error)));
}

#[test]
fn features_and_documentation_come_from_the_type() {
    let registry = registry().unwrap();
    let command = registry.find_command(SetLevel::NAME).unwrap();
    assert_eq!(command.features(), ["unstable", "x-wide"]);
    assert_eq!(command.documentation(), Some("Sets the level.\n\nFails below zero."));
    let command = registry.find_command(AddLevel::NAME).unwrap();
    assert_eq!(command.documentation(), Some("Adds to the level."));
    let event = registry.find_event("X_LEVEL").unwrap();
    assert_eq!(event.features(), ["unstable"]);
    assert_eq!(event.documentation(), Some("The level has changed."));
}

#[test]
fn names_can_be_made_at_run_time() {
    let mut registry = Registry::new();
    for bay in 0..3 {
        let name = format!("x-eject-{bay}");
        registry.infallible_command(name, move |_: &Context| bay).unwrap();
        registry.event(&EventType::<()>::named(format!("X_BAY_{bay}"))).unwrap();
    }
    let duplicate = registry.command("x-eject-1".to_owned(), |_: &Context| Err::<(), _>("no"));
    assert_eq!(duplicate.unwrap_err(), RegisterError::Duplicate("x-eject-1".into()));
    let client = LocalClient::new(registry);
    assert_eq!(client.ask("{'execute': 'x-eject-2'}"), [r#"{"return": 2}"#]);
    let event = EventType::<()>::named("X_BAY_2".to_owned());
    client.monitor().dispatcher().emit(&event, &()).unwrap();
    assert_eq!(client.events()[0].name, "X_BAY_2");
}

proptest! {
    #[test]
    fn what_is_called_is_what_is_served(level: i64, wide_name: String) {
        let mut registry = Registry::new();
        command_types! { Echo = "x-echo"(Level) -> Level; }
        registry.serve::<Echo>(|_: &Context, level: Level| level).unwrap();
        let level = Level { level, wide_name };
        prop_assert_eq!(LocalClient::new(registry).call::<Echo>(&level), Ok(level));
    }
}
