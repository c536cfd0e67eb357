// SPDX-License-Identifier: MIT OR Apache-2.0
//! Panics of the embedder's code, and where they happen.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Where this thread has panicked last.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs a panic hook that records where panics happen, so that the log can tell where a handler has
/// panicked. For programs: a process has one panic hook. The hook that is there is called afterwards.
///
/// Calling it again changes nothing. Without it, the log tells only what a panic says.
///
/// # Panics
///
/// If the thread is panicking, as [`set_hook`].
///
/// ```
/// qmp_dispatch::install_panic_hook();
/// ```
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            // What runs when a thread ends may panic, too.
            let _ = PLACE.try_with(|last| last.replace(place));
            hook(panic);
        }));
    });
}

/// What is known of a panic.
pub(crate) struct Panic {
    /// What it says, if it says anything.
    pub(crate) reason: String,
    /// File, line and column.
    pub(crate) place: Option<String>,
}

/// Calls code of the embedder.
#[inline]
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(call)).map_err(Panic::new)
}

impl Panic {
    #[cold]
    fn new(panic: Box<dyn Any + Send>) -> Panic {
        Panic { reason: message(&*panic).to_owned(), place: PLACE.take() }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
