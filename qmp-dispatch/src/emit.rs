// SPDX-License-Identifier: MIT OR Apache-2.0
//! Emitting events, now or when their time has come.

use std::any::{Any, TypeId};
use std::time::Duration;

use qmp_proto::{Event, Json};
use serde::Serialize;

use crate::reply::WeakReply;
use crate::timers::{Expired, TimerKey};
use crate::{Dispatcher, EmitError, EventType, Time, trace};

impl Dispatcher {
    /// Emits an event to every monitor that has completed negotiation.
    ///
    /// Can be called on any thread, also within a handler: the event then precedes the response to its
    /// command. All monitors get all events in the same order. Events that the
    /// [policy](crate::Registry::set_policy) hides are not sent.
    ///
    /// # Errors
    ///
    /// [`EmitError`] if the event is not declared in the registry, or with data of another type, or if
    /// its data cannot be written.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::{EventType, LocalClient, Registry};
    ///
    /// const RTC_CHANGE: EventType<()> = EventType::new("RTC_CHANGE");
    ///
    /// let mut registry = Registry::new();
    /// registry.event(&RTC_CHANGE)?.at_most_every(Duration::from_secs(1));
    /// let client = LocalClient::new(registry);
    /// let dispatcher = client.monitor().dispatcher();
    /// let (wake, wakeups) = mpsc::channel();
    /// dispatcher.set_timeout_hook(move || _ = wake.send(()));
    ///
    /// dispatcher.emit(&RTC_CHANGE, &()).unwrap();
    /// assert!(client.ask("")[0].contains(r#""event": "RTC_CHANGE""#));
    /// assert!(wakeups.try_recv().is_ok());
    /// assert_eq!(dispatcher.timeout(), Some(Duration::from_secs(1)));
    /// // When that has passed:
    /// dispatcher.handle_timeout();
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn emit<T: Serialize + 'static>(
        &self,
        event: &EventType<T>,
        data: &T,
    ) -> Result<(), EmitError> {
        let name = event.name();
        let registry = self.registry();
        let Some(declared) = registry.find_event(name) else {
            return Err(EmitError::Undeclared(name.clone()));
        };
        if declared.data_type() != TypeId::of::<T>() {
            return Err(EmitError::OtherType(name.clone()));
        }
        if !registry.policy().shows_event(declared.features()) {
            return Ok(());
        }
        let encoded = match (data as &dyn Any).is::<()>() {
            true => None,
            false => {
                let unwritten = |reason| EmitError::Data { name: name.clone(), reason };
                let json = Json::encode(data).map_err(unwritten)?;
                if self.checks_output() {
                    let mismatch = |reason| EmitError::Mismatch { name: name.clone(), reason };
                    declared.data().check(&json).map_err(mismatch)?;
                }
                Some(declared.data().shown(registry.policy(), json))
            }
        };
        let interval = declared.interval();
        let key = (!interval.is_zero()).then(|| declared.key(data));
        self.counters().events.count();
        let Time { wall, monotonic } = self.now();
        let event = Event::new(name.clone(), encoded, wall);
        trace::monitor_protocol_event_queue(&event, interval);
        let Some(key) = key else {
            self.audience().deliver(&event);
            return Ok(());
        };
        let offered = self.shared.timers.offer(monotonic, interval, (name.clone(), key), event);
        if offered.held_back {
            self.counters().events_held_back.count();
        }
        if let Some(event) = offered.send {
            self.audience().deliver(&event);
        }
        Ok(())
    }

    /// Emits an event of another server as it is, with its timestamp, for a
    /// [`Forwarder`](crate::Forwarder).
    ///
    /// It need not be declared and is not rate-limited. Otherwise, this is like [`emit`](Dispatcher::emit).
    pub fn relay(&self, event: &Event) {
        self.counters().events.count();
        self.audience().deliver(event);
    }

    /// Returns how long until [`handle_timeout`](Dispatcher::handle_timeout) is to be called, or `None` if
    /// nothing waits for time to pass. To be asked again after every call and when the
    /// [hook](Dispatcher::set_timeout_hook) is called. Takes constant time and no lock.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let next = self.shared.timers.next()?;
        Some(next.saturating_sub(self.now().monotonic))
    }

    /// Does what is due now: sends events that rate limits held back, and errors for commands that have passed
    /// their deadline.
    pub fn handle_timeout(&self) {
        for expired in self.shared.timers.expire(self.now().monotonic) {
            match expired {
                Expired::Deadline(reply) => reply.expire(),
                Expired::Window { event, held } => {
                    trace::monitor_protocol_event_handler(&event, held.as_ref());
                    // It may have been removed in the meantime.
                    if let Some(held) = held
                        && self.registry().find_event(&event).is_some()
                    {
                        self.audience().deliver(&held);
                    }
                }
            }
        }
    }

    /// Sets a function that is called whenever the [timeout](Dispatcher::timeout) has become shorter, on the
    /// thread that caused it and without any lock held. Only the first one is kept. Returns whether this one
    /// was.
    pub fn set_timeout_hook(&self, hook: impl Fn() + Send + Sync + 'static) -> bool {
        self.shared.timers.set_hook(Box::new(hook))
    }

    pub(crate) fn add_deadline(&self, after: Duration, reply: WeakReply) -> TimerKey {
        let at = self.now().monotonic.saturating_add(after);
        self.shared.timers.add_deadline(at, reply)
    }

    pub(crate) fn remove_deadline(&self, deadline: TimerKey) {
        self.shared.timers.cancel(deadline);
    }
}
