// SPDX-License-Identifier: MIT OR Apache-2.0
//! Support for the cross-crate tests.
