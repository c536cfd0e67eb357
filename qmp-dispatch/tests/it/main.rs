// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the crate promises, from outside. One program: each would have to be linked by itself.

mod agent;
mod async_commands;
mod commands_as_types;
mod forwarding;
mod interception;
mod later_answers;
mod monitor;
mod output;
mod qapi_against_qemu;
mod qapi_arguments;
mod qapi_policy;
mod qapi_properties;
mod qapi_serde;
mod qapi_types;
mod shapes;
mod stats;
mod support;
mod updates;
