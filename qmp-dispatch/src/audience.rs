// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who gets events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use qmp_proto::{Event, Layout};

use crate::{Monitor, MonitorId, trace};

/// The monitors whose clients have been sent the response to their negotiation.
///
/// Under the lock, nothing is called but [`Output`](crate::Output): filters and tracing subscribers may
/// block or emit events themselves, and a monitor that is dropped runs code of the embedder. So the
/// monitors are taken out of the list, asked without the lock, and kept until it is released.
#[derive(Default)]
pub(crate) struct Audience {
    /// Held while a message is transmitted to all, so that all see events in the same order.
    listening: Mutex<Listening>,
}

/// In the order of their connections.
type Listening = BTreeMap<MonitorId, Weak<Monitor>>;

impl Audience {
    /// Calls `transmit`, and adds a monitor that gets every event emitted after that.
    pub(crate) fn join(&self, monitor: &Arc<Monitor>, transmit: impl FnOnce()) {
        let mut listening = self.lock();
        transmit();
        listening.insert(monitor.id(), Arc::downgrade(monitor));
    }

    /// Removes a monitor, if it has joined.
    pub(crate) fn leave(&self, id: MonitorId) {
        self.lock().remove(&id);
    }

    /// Sends an event to all who want it. A monitor that joins meanwhile gets the next one.
    pub(crate) fn deliver(&self, event: &Event) {
        trace::monitor_protocol_event_emit(event);
        let mut monitors: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        let mut texts = Texts { event, compact: None, pretty: None, line_feed: None };
        monitors.retain(|monitor| {
            let wants = monitor.accepts_event(&event.name);
            if wants {
                trace::monitor_qmp_respond(monitor.id(), texts.in_layout(monitor.layout()));
            }
            wants
        });
        let listening = self.lock();
        for monitor in &monitors {
            monitor.output().transmit_event(texts.in_layout(monitor.layout()));
        }
        drop(listening);
        monitors.iter().for_each(|monitor| monitor.output().flush());
    }

    fn lock(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event as it goes to many monitors: written once for each layout.
struct Texts<'e> {
    event: &'e Event,
    compact: Option<Arc<str>>,
    pretty: Option<Arc<str>>,
    line_feed: Option<Arc<str>>,
}

impl Texts<'_> {
    fn in_layout(&mut self, layout: Layout) -> &Arc<str> {
        let text = match layout {
            Layout::Compact => &mut self.compact,
            Layout::Pretty => &mut self.pretty,
            Layout::LineFeed => &mut self.line_feed,
        };
        text.get_or_insert_with(|| {
            let mut text = String::new();
            self.event.write(layout, &mut text);
            text.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use qmp_proto::Version;

    use crate::{Dispatcher, LocalClient, Registry, Time};

    #[test]
    fn only_negotiated_monitors_are_in_the_list_and_only_while_they_are_there() {
        let version = Version::new(0, 0, 0, "");
        let dispatcher = Dispatcher::new(Registry::new(), version, Time::default);
        let listening = || dispatcher.audience().lock().len();
        let clients: Vec<_> = (0..3).map(|_| LocalClient::connect(&dispatcher)).collect();
        assert_eq!(listening(), 3);
        drop(clients);
        assert_eq!(listening(), 0);
    }
}
