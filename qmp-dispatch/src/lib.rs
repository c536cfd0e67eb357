// SPDX-License-Identifier: MIT OR Apache-2.0
//! QMP commands as typed Rust functions.

pub mod qapi;
