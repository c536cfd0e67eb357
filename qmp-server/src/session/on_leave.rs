// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a wing does when a client has left.

/// A [local](qmp_dispatch::Monitor::local) that is told when its monitor's client has left. The monitor itself, and so its
/// other locals, may live on for as long as the client's commands are not answered.
pub(crate) struct OnLeave(Box<dyn Fn() + Send + Sync>);

impl OnLeave {
    #[cfg(feature = "mux")]
    pub(crate) fn new(on_leave: impl Fn() + Send + Sync + 'static) -> OnLeave {
        OnLeave(Box::new(on_leave))
    }

    pub(crate) fn call(&self) {
        (self.0)();
    }
}
