// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are served by futures, polled by hand.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as Polled, Poll, Wake, Waker};
use std::time::Duration;

use crate::support::{Screen, feed, negotiated};
use qmp_dispatch::proto::{Error, Version};
use qmp_dispatch::{
    AsyncContext, Call, Context, Dispatcher, Interceptor, Monitor, RegisterError, Registry,
    Responder, Task, Time, current, qapi_types,
};

/// An executor that polls when it is told to.
#[derive(Clone, Default)]
struct Hand {
    tasks: Arc<Mutex<Vec<Task>>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Hand {
    /// Polls all tasks once. Returns how many are left.
    fn poll(&self) -> usize {
        let waker = Waker::from(Arc::clone(&self.woken));
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        let left = tasks.into_iter().filter_map(|mut task| {
            let polled = Pin::new(&mut task).poll(&mut Polled::from_waker(&waker));
            polled.is_pending().then_some(task)
        });
        let left: Vec<Task> = left.collect();
        self.tasks.lock().unwrap().extend(left);
        self.len()
    }

    fn len(&self) -> usize {
        self.tasks.lock().unwrap().len()
    }

    fn woken(&self) -> usize {
        self.woken.0.swap(0, Ordering::Relaxed)
    }
}

/// What handlers share with the tests.
#[derive(Default)]
struct Shared {
    /// Handlers that wait go on when this is above zero, and then subtract one.
    permits: AtomicUsize,
    log: Mutex<Vec<String>>,
}

impl Shared {
    fn log(&self, line: impl Into<String>) {
        self.log.lock().unwrap().push(line.into());
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn permit(&self) {
        self.permits.fetch_add(1, Ordering::Relaxed);
    }

    async fn wait(&self) {
        poll_fn(|_| {
            let current = current().map(|monitor| monitor.id().to_string());
            self.log(format!("polled for {}", current.unwrap_or_default()));
            let down = |permits: usize| permits.checked_sub(1);
            match self.permits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down) {
                Ok(_) => Poll::Ready(()),
                Err(_) => Poll::Pending,
            }
        })
        .await;
    }

    async fn wait_for(self: Arc<Self>, _: AsyncContext, wait: Wait) -> Result<u64, Error> {
        let _dropped = Dropped(Arc::clone(&self));
        for _ in 0..wait.times {
            self.wait().await;
        }
        half(wait.times).await?;
        Ok(wait.times)
    }

    async fn wait_or_close(self: Arc<Self>, context: AsyncContext) -> Result<(), Error> {
        let mut closed = pin!(context.closed());
        poll_fn(|polled| closed.as_mut().poll(polled)).await;
        self.log(format!("closed, awaited: {}", context.is_awaited()));
        Ok(())
    }
}

/// Logs the end of a future, and whose it was.
struct Dropped(Arc<Shared>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let current = current().map(|monitor| monitor.id().to_string());
        self.0.log(format!("dropped for {}", current.unwrap_or_default()));
    }
}

async fn half(number: u64) -> Result<u64, Error> {
    if number == 13 { Err(Error::generic("13 is unlucky")) } else { Ok(number / 2) }
}

qapi_types! {
    struct Wait {
        times: u64,
    }
}

struct Site {
    dispatcher: Dispatcher,
    hand: Hand,
    shared: Arc<Shared>,
    seconds: Arc<AtomicU64>,
}

impl Site {
    /// `polls_now` says whether the executor polls in the dispatcher first.
    fn new(polls_now: bool) -> Site {
        Site::with(polls_now, |_| ())
    }

    fn with(polls_now: bool, more: impl FnOnce(&mut Registry)) -> Site {
        let (hand, shared) = (Hand::default(), Arc::new(Shared::default()));
        let mut registry = Registry::new();
        let executor = hand.clone();
        registry.set_executor(move |task: Task| {
            let task = if polls_now { task.poll_now() } else { Some(task) };
            executor.tasks.lock().unwrap().extend(task);
        });
        let mut group = registry.with(Arc::clone(&shared));
        group.async_command("x-wait", Shared::wait_for).unwrap();
        group.async_command("x-cancellable", Shared::wait_for).unwrap().cancellable();
        let limited = group.async_command("x-limited", Shared::wait_for).unwrap();
        limited.deadline(Duration::from_secs(1));
        group.async_command("x-close", Shared::wait_or_close).unwrap();
        let limited = group.async_command("x-close-limited", Shared::wait_or_close).unwrap();
        limited.deadline(Duration::from_secs(1));
        more(&mut registry);
        let seconds = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&seconds);
        let now = move || {
            let monotonic = Duration::from_secs(clock.load(Ordering::Relaxed));
            Time { monotonic, ..Time::default() }
        };
        let dispatcher = Dispatcher::new(registry, Version::new(0, 1, 0, "test"), now);
        Site { dispatcher, hand, shared, seconds }
    }

    fn client(&self) -> (Arc<Monitor>, Arc<Screen>) {
        negotiated(&self.dispatcher)
    }

    fn pass_a_second(&self) {
        self.seconds.fetch_add(1, Ordering::Relaxed);
        self.dispatcher.handle_timeout();
    }
}

fn wait(command: &str, times: u64) -> String {
    format!("{{'execute': '{command}', 'arguments': {{'times': {times}}}}}")
}

const RETURNS_0: &str = "{\"return\": 0}";
const LATE: &str = r#"{"error": {"class": "GenericError", "desc": "The command x-limited was not answered within 1 seconds"}}"#;

#[test]
fn what_does_not_wait_is_answered_at_once() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    feed(&monitor, &(wait("x-wait", 0) + "{'execute': 'query-version'}"));
    let said = screen.take();
    assert_eq!(said[0], RETURNS_0);
    assert!(said[1].contains("\"qemu\""));
    assert_eq!((site.hand.len(), said.len()), (0, 2));
}

#[test]
fn an_executor_need_not_poll_in_the_dispatcher() {
    let site = Site::new(false);
    let (monitor, screen) = site.client();
    feed(&monitor, &wait("x-wait", 0));
    assert!(screen.take().is_empty());
    assert_eq!(site.hand.poll(), 0);
    assert_eq!(screen.take(), [RETURNS_0]);
}

#[test]
fn others_are_served_while_one_waits() {
    let site = Site::new(true);
    let [(first, one), (second, two)] = [site.client(), site.client()];
    feed(&first, &wait("x-wait", 2));
    feed(&second, &wait("x-wait", 0));
    assert_eq!(two.take(), [RETURNS_0]);
    for _ in 0..2 {
        assert!(one.take().is_empty());
        site.shared.permit();
        site.hand.poll();
    }
    assert_eq!(one.take(), ["{\"return\": 2}"]);
    assert_eq!(site.hand.len(), 0);
}

#[test]
fn the_monitor_is_current_at_every_poll_and_when_the_future_is_dropped() {
    let site = Site::new(true);
    let (monitor, _screen) = site.client();
    feed(&monitor, &wait("x-wait", 1));
    assert!(current().is_none());
    site.hand.poll();
    site.shared.permit();
    site.hand.poll();
    let id = monitor.id();
    let (polled, dropped) = (format!("polled for {id}"), format!("dropped for {id}"));
    assert_eq!(site.shared.take_log(), [&*polled, &polled, &polled, &dropped]);
    // Dropped by the executor:
    feed(&monitor, &wait("x-wait", 1));
    site.hand.tasks.lock().unwrap().clear();
    assert_eq!(site.shared.take_log(), [&*polled, &dropped]);
    assert!(current().is_none());
}

#[test]
fn errors_are_passed_on_with_a_question_mark() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    site.shared.permits.store(13, Ordering::Relaxed);
    feed(&monitor, &wait("x-wait", 13));
    let expected = r#"{"error": {"class": "GenericError", "desc": "13 is unlucky"}}"#;
    assert_eq!(screen.take(), [expected]);
}

#[test]
fn a_panic_is_answered_once() {
    for panics_at in 0..3 {
        let site = Site::with(true, |registry| {
            let panics = move |_: AsyncContext| {
                assert_ne!(panics_at, 0, "when it is called");
                let mut polls = 0;
                poll_fn(move |_| -> Poll<Result<(), Error>> {
                    polls += 1;
                    assert_ne!(polls, panics_at, "when it is polled");
                    Poll::Pending
                })
            };
            registry.async_command("x-panic", panics).unwrap();
        });
        let (monitor, screen) = site.client();
        let done = Arc::new(AtomicUsize::new(0));
        let mut reader = qmp_dispatch::proto::Reader::default();
        let pending = monitor.receive(reader.read(&mut &b"{'execute': 'x-panic'}"[..]).unwrap());
        let times = Arc::clone(&done);
        monitor.execute(pending, move || _ = times.fetch_add(1, Ordering::Relaxed));
        assert_eq!(site.hand.poll(), 0);
        let said = screen.take();
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("The command x-panic failed: internal error"), "{}", said[0]);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_task_that_is_dropped_answers_with_an_error() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    feed(&monitor, &wait("x-wait", 1));
    site.hand.tasks.lock().unwrap().clear();
    assert!(screen.take()[0].contains("The command x-wait was not answered"));
}

#[test]
fn an_executor_that_panics_answers_with_an_error() {
    let mut registry = Registry::new();
    registry.set_executor(|_: Task| panic!("on purpose"));
    registry.async_command("x", |_: AsyncContext| async { Ok::<(), Error>(()) }).unwrap();
    let (monitor, screen) =
        negotiated(&Dispatcher::new(registry, Version::new(0, 1, 0, "test"), Time::default));
    feed(&monitor, "{'execute': 'x'}");
    let said = screen.take();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("error"));
}

#[test]
fn a_handler_is_notified_when_its_client_has_gone() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    feed(&monitor, "{'execute': 'x-close'}");
    site.hand.poll();
    assert_eq!((site.hand.woken(), site.shared.take_log().len()), (0, 0));
    monitor.close();
    assert_eq!(site.hand.woken(), 1);
    assert_eq!(site.hand.poll(), 0);
    assert_eq!(site.shared.take_log(), ["closed, awaited: false"]);
    // It has answered; where that goes is up to the owner of the connection.
    assert_eq!(screen.take(), [r#"{"return": {}}"#]);
    // Whoever begins now is notified at once.
    feed(&monitor, "{'execute': 'x-close'}");
    assert_eq!((site.hand.len(), site.shared.take_log().len()), (0, 1));
}

#[test]
fn a_handler_is_notified_when_its_deadline_has_passed() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    feed(&monitor, "{'execute': 'x-close-limited'}");
    site.hand.poll();
    site.pass_a_second();
    assert_eq!(site.hand.woken(), 1);
    assert!(screen.take()[0].contains("was not answered within 1 seconds"));
    assert_eq!(site.hand.poll(), 0);
    assert_eq!(site.shared.take_log(), ["closed, awaited: false"]);
    assert!(screen.take().is_empty());
}

#[test]
fn a_handler_goes_on_unless_it_is_cancellable() {
    let site = Site::new(true);
    let (monitor, screen) = site.client();
    feed(&monitor, &(wait("x-wait", 1) + &wait("x-limited", 1)));
    site.hand.poll();
    site.shared.take_log();
    site.pass_a_second();
    monitor.close();
    assert_eq!((site.hand.woken(), site.hand.poll()), (0, 2));
    assert_eq!(screen.take(), [LATE]);
    site.shared.permit();
    site.shared.permit();
    assert_eq!(site.hand.poll(), 0);
    assert_eq!(screen.take(), ["{\"return\": 1}"]);
    assert_eq!(site.dispatcher.stats().late_answers, 1);
}

/// Counts requests that are abandoned and answered.
#[derive(Clone, Default)]
struct Outcomes(Arc<[AtomicUsize; 2]>);

impl Interceptor for Outcomes {
    fn after(&self, _: &Call<'_>, _: &mut Result<qmp_dispatch::proto::Json, Error>, _: Duration) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    fn abandoned(&self, _: &Call<'_>, _: Duration) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_future_of_a_cancellable_command_is_dropped() {
    let outcomes = Outcomes::default();
    let site = Site::with(true, |registry| registry.intercept(outcomes.clone()));
    let (monitor, screen) = site.client();
    feed(&monitor, &wait("x-cancellable", 1));
    site.hand.poll();
    site.shared.take_log();
    monitor.close();
    assert_eq!(site.hand.woken(), 1);
    assert_eq!(site.hand.poll(), 0);
    assert_eq!(site.shared.take_log(), [format!("dropped for {}", monitor.id())]);
    assert!(screen.take().is_empty());
    let count = |at: usize| outcomes.0[at].load(Ordering::Relaxed);
    assert_eq!((count(0), count(1)), (1, 1), "negotiation, and the request");
}

#[test]
fn a_deferred_handler_is_notified() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let called = Arc::new(AtomicUsize::new(0));
    let (hold, calls) = (Arc::clone(&held), Arc::clone(&called));
    let site = Site::with(true, |registry| {
        let handler = move |_: &Context, responder: Responder<()>| {
            let calls = Arc::clone(&calls);
            responder.on_closed(move || _ = calls.fetch_add(1, Ordering::Relaxed));
            hold.lock().unwrap().push(responder);
        };
        let command = registry.deferred_command("x-hold", handler).unwrap();
        command.deadline(Duration::from_secs(1));
    });
    let (monitor, screen) = site.client();
    let calls = || called.swap(0, Ordering::Relaxed);
    let take = || held.lock().unwrap().pop().unwrap();

    feed(&monitor, "{'execute': 'x-hold'}");
    let responder = take();
    assert!(responder.is_awaited() && calls() == 0);
    responder.respond(Ok::<_, Error>(()));
    assert_eq!((calls(), screen.take().len()), (1, 1));

    feed(&monitor, "{'execute': 'x-hold'}");
    let responder = take();
    site.pass_a_second();
    assert!(!responder.is_awaited());
    drop(responder);
    assert_eq!((calls(), screen.take().len()), (1, 1));

    feed(&monitor, "{'execute': 'x-hold'}");
    let responder = take();
    monitor.close();
    assert!(monitor.is_closed() && !responder.is_awaited());
    assert_eq!(calls(), 1);
    // Nobody waits for it, so this is not an error.
    drop(responder);
    assert_eq!((calls(), screen.take().len()), (0, 0));
}

#[test]
fn a_callback_that_panics_spares_the_others() {
    let called = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&called);
    let site = Site::with(true, |registry| {
        let handler = move |context: &Context, responder: Responder<()>| {
            for panics in [true, false] {
                let calls = Arc::clone(&calls);
                responder.on_closed(move || {
                    calls.fetch_add(1, Ordering::Relaxed);
                    assert!(!panics, "on purpose");
                });
            }
            context.monitor().close();
        };
        registry.deferred_command("x-hold", handler).unwrap();
    });
    feed(&site.client().0, "{'execute': 'x-hold'}");
    assert_eq!(called.load(Ordering::Relaxed), 2);
}

#[test]
fn an_executor_comes_first() {
    let mut registry = Registry::new();
    let handler = |_: AsyncContext| pending::<Result<(), Error>>();
    let refused = registry.async_command("x", handler).unwrap_err();
    assert_eq!(refused, RegisterError::NoExecutor("x".into()));
    assert!(registry.find_command("x").is_none());
    registry.set_executor(|task: Task| task.run());
    assert!(registry.async_command("x", handler).unwrap().is_async());
    assert!(!registry.find_command("query-version").unwrap().is_async());
}
