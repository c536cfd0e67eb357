// SPDX-License-Identifier: MIT OR Apache-2.0
//! A callback for when a client has left.

/// A [local](qmp_dispatch::Monitor::local) that is called when its monitor's client has left. The monitor and its other
/// locals may live longer: until the last command of the client has been answered.
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
