// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for something that a test can only look at: a log, a file, the descriptors of a process.

use std::time::{Duration, Instant};

use crate::server::LIMIT;

const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Tries something until it succeeds, for as long as `patience` lasts.
pub fn retry<T, E>(patience: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(BETWEEN_TRIES),
            done => return done,
        }
    }
}

/// Looks until that succeeds, and returns the result.
#[track_caller]
pub fn wait_for<T>(look: impl FnMut() -> Result<T, String>) -> T {
    match retry(LIMIT, look) {
        Ok(value) => value,
        Err(error) => panic!("after {LIMIT:?}: {error}"),
    }
}

#[track_caller]
pub fn wait_until(mut condition: impl FnMut() -> bool) {
    wait_for(|| condition().then_some(()).ok_or_else(|| "the condition does not hold".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_while_there_is_patience() {
        let mut tries = 0;
        let third = retry(LIMIT, || {
            tries += 1;
            if tries < 3 { Err(tries) } else { Ok(tries) }
        });
        assert_eq!(third, Ok(3));
        assert_eq!(retry(Duration::ZERO, || Err::<(), _>("never")), Err("never"));
    }
}
