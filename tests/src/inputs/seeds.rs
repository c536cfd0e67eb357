// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeds from the conformance cases.

use qmp_proto::Dialect;

use crate::conformance::case;
use crate::conformance::runner::Options;
use crate::conformance::step::{Action, Payload};

/// Longer ones are cases of limits; they would take all the time.
const LONGEST: usize = 400;

/// All inputs of the cases that come with this crate, but the long ones.
pub fn from_cases() -> Result<Vec<Vec<u8>>, String> {
    let mut cases = vec![Options::own_cases()];
    cases.extend(Options::newer_cases(Dialect::default()));
    let steps = case::load(&cases)?.into_iter().flat_map(|case| case.steps);
    let sent = steps.filter_map(|step| match step.action {
        Action::Send(send) => match send.payload {
            Payload::Bytes(bytes) => Some(bytes),
            Payload::Template(_) | Payload::Repeated { .. } => None,
        },
        _ => None,
    });
    Ok(sent.filter(|bytes| bytes.len() <= LONGEST).collect())
}
