// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that end before they are answered, and who is notified of that.

use std::collections::BTreeMap;
use std::mem::take;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as Polled, Poll, Wake, Waker};

use crate::panics::{Panic, caught};
use crate::reply::OpenRequest;

/// The wakers of one request. Each belongs to a [`Closed`] that is alive, or to a callback.
#[derive(Default)]
pub(crate) struct Wakers {
    wakers: BTreeMap<u64, Waker>,
    last_key: u64,
    /// The key among the [`OpenRequests`] of the monitor, once something is to be woken.
    place: Option<u64>,
}

impl Wakers {
    /// Returns a key for a waker: this one, or a new one. Returns `None` if the monitor is closed.
    pub(crate) fn key(
        &mut self,
        key: Option<u64>,
        request: &Arc<OpenRequest>,
        others: &OpenRequests,
    ) -> Option<u64> {
        if self.place.is_none() {
            self.place = Some(others.add(Arc::downgrade(request))?);
        } else if others.is_closed() {
            return None;
        }
        Some(key.unwrap_or_else(|| {
            self.last_key += 1;
            self.last_key
        }))
    }

    /// Returns the waker that had this key.
    pub(crate) fn set(&mut self, key: u64, waker: Waker) -> Option<Waker> {
        self.wakers.insert(key, waker)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    /// Takes all wakers, to be woken with nothing locked.
    pub(crate) fn take(&mut self) -> Wakers {
        Wakers { wakers: take(&mut self.wakers), last_key: 0, place: self.place.take() }
    }

    /// The request is closed. `others` are the requests of its monitor.
    pub(crate) fn wake(self, others: &OpenRequests) {
        if let Some(place) = self.place {
            others.remove(place);
        }
        for waker in self.wakers.into_values() {
            if let Err(Panic { reason, place }) = caught(|| waker.wake()) {
                tracing::error!(reason, place, "what is called when a request is closed panicked");
            }
        }
    }
}

/// The requests of one monitor that have something to wake.
#[derive(Default)]
pub(crate) struct OpenRequests {
    requests: Mutex<Requests>,
    /// Written while `requests` is locked. No request is added any more, so none is missed.
    closed: AtomicBool,
}

#[derive(Default)]
struct Requests {
    open: BTreeMap<u64, Weak<OpenRequest>>,
    last_key: u64,
}

impl OpenRequests {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns `None` if the monitor is closed.
    fn add(&self, request: Weak<OpenRequest>) -> Option<u64> {
        let mut requests = self.lock();
        if self.is_closed() {
            return None;
        }
        requests.last_key += 1;
        let key = requests.last_key;
        requests.open.insert(key, request);
        Some(key)
    }

    fn remove(&self, key: u64) {
        self.lock().open.remove(&key);
    }

    /// Closes the monitor: wakes what waits for the end of its requests.
    pub(crate) fn close(&self) {
        let mut requests = self.lock();
        self.closed.store(true, Ordering::Release);
        let open = take(&mut requests.open);
        drop(requests);
        for request in open.into_values().filter_map(|request| request.upgrade()) {
            request.take_wakers().wake(self);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes when a request is closed.
pub(crate) struct Closed {
    request: Arc<OpenRequest>,
    /// Of the waker in the request, once it has been polled.
    key: Option<u64>,
}

impl Closed {
    pub(crate) fn new(request: &Arc<OpenRequest>) -> Closed {
        Closed { request: Arc::clone(request), key: None }
    }
}

impl Future for Closed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, polled: &mut Polled<'_>) -> Poll<()> {
        self.key = self.request.add_waker(self.key, polled.waker());
        if self.key.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.request.remove_waker(key);
        }
    }
}

/// A callback as a waker, which is woken at most once.
pub(crate) struct Callback(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Callback {
    pub(crate) fn waker(callback: impl FnOnce() + Send + 'static) -> Waker {
        Waker::from(Arc::new(Callback(Mutex::new(Some(Box::new(callback))))))
    }
}

impl Wake for Callback {
    fn wake(self: Arc<Self>) {
        let callback = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(callback) = callback {
            callback();
        }
    }
}

#[cfg(test)]
mod tests {
    use qmp_proto::Error;

    use super::*;
    use crate::{Context, LocalClient, Registry, Responder};

    #[test]
    fn nothing_is_kept_of_what_waits_no_more() {
        let mut registry = Registry::new();
        let handler = |context: &Context, responder: Responder<()>| {
            let request = responder.request();
            let mut polled = Polled::from_waker(Waker::noop());
            for _ in 0..100 {
                let mut closed = [Closed::new(request), Closed::new(request)];
                for closed in closed.iter_mut().chain(&mut [Closed::new(request)]) {
                    assert!(Pin::new(&mut *closed).poll(&mut polled).is_pending());
                    assert!(Pin::new(closed).poll(&mut polled).is_pending());
                }
                let kept = request.take_wakers();
                assert_eq!(kept.wakers.len(), 2);
                kept.wake(context.monitor().open_requests());
            }
            assert!(request.take_wakers().wakers.is_empty());
            responder.on_closed(|| ());
            assert_eq!(context.monitor().open_requests().lock().open.len(), 1);
            responder.respond(Ok::<_, Error>(()));
        };
        registry.deferred_command("x", handler).unwrap();
        let client = LocalClient::new(registry);
        for _ in 0..2 {
            assert_eq!(client.ask("{'execute': 'x'}"), [r#"{"return": {}}"#]);
            assert!(client.monitor().open_requests().lock().open.is_empty());
        }
    }
}
