// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of introspection: large, and the same for many servers and roles.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use qmp_dispatch::proto::Json;
use serde::{Deserialize, Serialize};

/// Largest result that is kept, in bytes. QEMU's own schemas have a quarter of a MiB.
const MOST_BYTES: usize = 4 << 20;

/// Which result it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Introspected {
    /// That of `query-commands`.
    Commands,
    /// That of `query-qmp-schema`.
    Schema,
}

impl Introspected {
    /// The result that the command of this name has.
    pub(crate) fn of(command: &str) -> Option<Introspected> {
        match command {
            "query-commands" => Some(Introspected::Commands),
            "query-qmp-schema" => Some(Introspected::Schema),
            _ => None,
        }
    }
}

/// The results that are kept anywhere in the process, by the hashes of their texts. It keeps none alive.
static KEPT: LazyLock<Mutex<HashMap<u64, Weak<Json>>>> = LazyLock::new(Mutex::default);

/// Clients choose no results, but their servers may be hostile: so nobody is to know the hashes.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Returns the result to keep: the copy that is kept already, if there is one. `None` if it is too large to be kept.
pub(crate) fn kept(result: &Json) -> Option<Arc<Json>> {
    if result.as_str().len() > MOST_BYTES {
        return None;
    }
    let hash = HASHER.hash_one(result.as_str());
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let same = all.get(&hash).and_then(Weak::upgrade).filter(|kept| **kept == *result);
    Some(same.unwrap_or_else(|| {
        all.retain(|_, kept| kept.strong_count() > 0);
        let new = Arc::new(result.clone());
        all.insert(hash, Arc::downgrade(&new));
        new
    }))
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::proto::Value;

    use super::*;

    #[test]
    fn results_that_are_alike_are_kept_once_and_not_for_ever() {
        let json = |text: &str| Json::from(&Value::from(text));
        let first = kept(&json("a result of a test")).unwrap();
        let again = kept(&json("a result of a test")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = kept(&json("another result of a test")).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        let gone = Arc::downgrade(&first);
        drop((first, again));
        assert!(gone.upgrade().is_none());
        kept(&json("a third result of a test")).unwrap();
        let all = KEPT.lock().unwrap();
        assert!(all.values().all(|kept| !kept.ptr_eq(&gone)), "what has gone leaves no entry");
    }

    #[test]
    fn a_result_that_is_too_large_is_not_kept() {
        let json = |length| Json::from(&Value::from("x".repeat(length)));
        assert!(kept(&json(MOST_BYTES)).is_none());
        assert!(kept(&json(MOST_BYTES - 2)).is_some());
    }
}
