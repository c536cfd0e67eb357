// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call`: one command on any QMP server.

use std::time::Instant;

use qmp_dispatch::proto::{Band, Object, ParseValueError, Value};

use crate::Failure;
use crate::arguments::CallOptions;
use crate::client::{Broken, Client, OutOfBand, print};

pub(crate) fn call(options: &CallOptions) -> Result<(), Failure> {
    let mut arguments = Object::new();
    for argument in &options.arguments {
        let (name, value) = parse_argument(argument)?;
        if arguments.insert(name, value).is_some() {
            return Err(Failure::usage(format_args!("argument '{name}' is given twice")));
        }
    }
    let (oob, band) = match options.oob {
        true => (OutOfBand::Needed, Band::OutOfBand),
        false => (OutOfBand::No, Band::InBand),
    };
    let address = &options.server.address;
    let broken = |error: Broken| Failure::usage(format_args!("{address}: {error}"));
    let client = Client::connect(&options.server, &options.tls, options.timeout, oob);
    let mut client = client.map_err(broken)?;
    let result = client.execute(&options.command, &arguments, band).map_err(broken)?;
    print(result.map_err(Failure::command)?.as_str())?;
    let Some(duration) = options.events else { return Ok(()) };
    let deadline = Instant::now() + duration;
    loop {
        match client.next_event(deadline) {
            Ok(Some(event)) => print(&event)?,
            Ok(None) => return Ok(()),
            // Not every server says that it has shut down.
            Err(Broken::Closed(_)) if options.command == "quit" => return Ok(()),
            Err(error) => return Err(broken(error)),
        }
    }
}
/// Reads `NAME=TEXT` or `NAME:=JSON`.
fn parse_argument(argument: &str) -> Result<(&str, Value), Failure> {
    let wrong = |reason: &str| Failure::usage(format_args!("argument '{argument}': {reason}"));
    let (name, value) =
        argument.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE or NAME:=JSON"))?;
    let Some(name) = name.strip_suffix(':') else {
        return Ok((name, value.into()));
    };
    let value = value.parse().map_err(|error: ParseValueError| wrong(&error.to_string()))?;
    Ok((name, value))
}
