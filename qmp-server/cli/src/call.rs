// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call`: one command on any QMP server.

use std::time::Instant;

use qmp_dispatch::proto::{Band, Capability, Json, Layout, Object, ParseValueError, Value};
use qmp_server::{AgentClient, ClientError};

use crate::Failure;
use crate::arguments::CallOptions;
use crate::client::{connect, print, with_flags};

pub(crate) fn call(options: &CallOptions) -> Result<(), Failure> {
    let mut arguments = Object::new();
    for argument in &options.arguments {
        let (name, value) = parse_argument(argument)?;
        if arguments.insert(name, value).is_some() {
            return Err(Failure::usage(format_args!("argument '{name}' is given twice")));
        }
    }
    let (capabilities, band) = match options.oob {
        true => (vec![Capability::OOB], Band::OutOfBand),
        false => (Vec::new(), Band::InBand),
    };
    let address = &options.server.address;
    let broken = |error: ClientError| match error {
        ClientError::Command(error) => Failure::command(error),
        error => Failure::usage(format_args!("{address}: {error}")),
    };
    let arguments = (!arguments.is_empty()).then(|| Json::from(&arguments));
    if options.agent {
        let server = with_flags(&options.server, &options.tls);
        let mut agent = AgentClient::connect(&server, options.timeout).map_err(broken)?;
        let result = agent.execute(&options.command, arguments.as_ref()).map_err(broken)?;
        return print(result.as_str());
    }
    let mut client =
        connect(&options.server, &options.tls, options.timeout, capabilities).map_err(broken)?;
    let result = client.execute(&options.command, arguments.as_ref(), band).map_err(broken)?;
    print(result.as_str())?;
    let Some(duration) = options.events else { return Ok(()) };
    if client.missed_events() > 0 {
        return Err(Failure::usage(format_args!(
            "{address}: the server sends more events than can be kept while it executes a command"
        )));
    }
    let deadline = Instant::now() + duration;
    // Not every server says that it has shut down.
    let mut may_end = options.command == "quit";
    loop {
        match client.next_event(deadline.saturating_duration_since(Instant::now())) {
            Ok(Some(event)) => {
                may_end |= event.name == "SHUTDOWN";
                let mut text = String::new();
                event.write(Layout::Compact, &mut text);
                print(&text)?;
            }
            Ok(None) => return Ok(()),
            Err(ClientError::Closed(_)) if may_end => return Ok(()),
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
