// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `qmp-server` program.

fn main() {}
