// SPDX-License-Identifier: MIT OR Apache-2.0
//! What those who have a role were last shown of introspection, and of what: schemas are large and hardly ever change.

use std::sync::{Arc, Mutex, PoisonError};

use qmp_dispatch::proto::Json;

use crate::introspected::{Introspected, kept};

#[derive(Debug, Default)]
pub(super) struct LastShown(Mutex<[Option<Shown>; 2]>);

#[derive(Debug)]
struct Shown {
    whole: Arc<Json>,
    part: Arc<Json>,
}

/// A copy of a role may come to allow something else.
impl Clone for LastShown {
    fn clone(&self) -> LastShown {
        LastShown::default()
    }
}

impl LastShown {
    /// What is shown of a result: what `part` makes of it, or made of the same one before.
    pub(super) fn of(
        &self,
        introspected: Introspected,
        whole: &Json,
        part: impl FnOnce() -> Json,
    ) -> Json {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut last[introspected as usize];
        match last {
            Some(shown) if *shown.whole == *whole => Json::clone(&shown.part),
            _ => {
                let part = part();
                *last = kept(whole).zip(kept(&part)).map(|(whole, part)| Shown { whole, part });
                part
            }
        }
    }
}
