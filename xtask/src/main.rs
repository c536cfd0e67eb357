// SPDX-License-Identifier: MIT OR Apache-2.0
//! Build, test and release tasks of this workspace.

fn main() {}
