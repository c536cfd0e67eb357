// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that the embedder keeps for each monitor.

use std::any::{Any, TypeId};
use std::fmt;

/// Values that belong to one monitor, one of each type, such as the peer or the file descriptors that it has
/// passed. Handlers access them with [`Monitor::local`](crate::Monitor::local).
#[derive(Default)]
pub struct Locals {
    /// A few, each of another type.
    values: Vec<(TypeId, Box<dyn Any + Send + Sync>)>,
}

impl Locals {
    /// Adds a value. Replaces one of the same type.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(mut self, value: T) -> Locals {
        self.values.retain(|(of, _)| *of != TypeId::of::<T>());
        self.values.push((TypeId::of::<T>(), Box::new(value)));
        self
    }

    /// Returns the value of this type, if there is one.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let (_, value) = self.values.iter().find(|(of, _)| *of == TypeId::of::<T>())?;
        value.downcast_ref()
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").field("len", &self.values.len()).finish()
    }
}
