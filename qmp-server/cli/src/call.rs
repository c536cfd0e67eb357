// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call`: one command on any QMP server.

use std::time::Instant;

use qmp_dispatch::proto::{Band, ParseValueError, Request, Value};

use crate::Failure;
use crate::arguments::CallOptions;
use crate::client::{Client, OutOfBand, invalid, print};

pub(crate) fn call(options: &CallOptions) -> Result<(), Failure> {
    let mut request = Request::new(&options.command);
    for argument in &options.arguments {
        let (name, value) = parse_argument(argument)?;
        if request.arguments.insert(name, value).is_some() {
            return Err(Failure::usage(format_args!("argument '{name}' is given twice")));
        }
    }
    if options.oob {
        request.band = Band::OutOfBand;
    }
    let broken = |error| Failure::usage(format_args!("{}: {error}", options.address));
    let client = Client::connect(&options.address, &options.tls, options.timeout);
    let mut client = client.map_err(broken)?;
    let oob = if options.oob { OutOfBand::Needed } else { OutOfBand::No };
    client.negotiate(oob).map_err(broken)?.map_err(|refused| broken(invalid(refused)))?;
    let result = client.execute(request).map_err(broken)?.map_err(Failure::command)?;
    print(result.as_str())?;
    if let Some(duration) = options.events {
        let deadline = Instant::now() + duration;
        while let Some(event) = client.next_event(deadline).map_err(broken)? {
            print(&event)?;
        }
    }
    Ok(())
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
