// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is observed of a server, before it runs and while it does.

#[cfg(feature = "metrics")]
use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use super::Hosted;
use crate::observe::Counters;

/// The counters of a server, and where its current state is read.
#[derive(Clone)]
pub(crate) struct Observed(Arc<Shared>);

struct Shared {
    counters: Arc<Counters>,
    /// Set when the server runs.
    server: OnceLock<Weak<Hosted>>,
    #[cfg(feature = "metrics")]
    extension: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Observed {
    pub(crate) fn new() -> Observed {
        Observed(Arc::new(Shared {
            counters: Arc::new(Counters::new()),
            server: OnceLock::new(),
            #[cfg(feature = "metrics")]
            extension: OnceLock::new(),
        }))
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// The server runs now.
    pub(super) fn set_server(&self, server: &Arc<Hosted>) {
        let _ = self.0.server.set(Arc::downgrade(server));
    }
}

#[cfg(feature = "metrics")]
impl Observed {
    /// The running server.
    pub(crate) fn server(&self) -> Option<Arc<Hosted>> {
        self.0.server.get()?.upgrade()
    }

    /// A value that is kept with the server, created by the first call. All callers name the same type.
    pub(crate) fn extension<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let kept = self.0.extension.get_or_init(|| Arc::new(T::default()));
        Arc::clone(kept).downcast().unwrap_or_default()
    }
}
