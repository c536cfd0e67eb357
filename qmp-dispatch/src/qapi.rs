// SPDX-License-Identifier: MIT OR Apache-2.0
//! QAPI's view of Rust types.
