// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is observed of a server, before it runs and while it does.

#[cfg(feature = "metrics")]
use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use crate::core::Core;
use crate::figures::Figures;

/// The counters of a server, and where its current state is read.
#[derive(Clone)]
pub(crate) struct Observed(Arc<Shared>);

struct Shared {
    figures: Arc<Figures>,
    /// Set when the server runs.
    core: OnceLock<Weak<Core>>,
    #[cfg(feature = "metrics")]
    extension: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Observed {
    pub(crate) fn new() -> Observed {
        Observed(Arc::new(Shared {
            figures: Arc::new(Figures::new()),
            core: OnceLock::new(),
            #[cfg(feature = "metrics")]
            extension: OnceLock::new(),
        }))
    }

    pub(crate) fn figures(&self) -> &Arc<Figures> {
        &self.0.figures
    }

    /// The server runs now.
    pub(crate) fn set_core(&self, core: &Arc<Core>) {
        let _ = self.0.core.set(Arc::downgrade(core));
    }
}

#[cfg(feature = "metrics")]
impl Observed {
    /// The running server.
    pub(crate) fn core(&self) -> Option<Arc<Core>> {
        self.0.core.get()?.upgrade()
    }

    /// A value that is kept with the server, created by the first call. All callers name the same type.
    pub(crate) fn extension<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let kept = self.0.extension.get_or_init(|| Arc::new(T::default()));
        Arc::clone(kept).downcast().unwrap_or_default()
    }
}
