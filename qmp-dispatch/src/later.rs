// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are served by futures.

mod context;
mod handler;
mod task;

pub use self::context::AsyncContext;
pub use self::handler::AsyncHandler;
pub(crate) use self::handler::ErasedAsync;
pub use self::task::{Spawn, Task};
