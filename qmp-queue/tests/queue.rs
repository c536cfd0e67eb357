// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small cases of each operation. What they make together is in `laws.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{TryRecvError, bounded, select, unbounded};
use qmp_queue::{Mode, Producer, ProducerId, PushError, Pushed, Queue, Resume};

fn up_to(limit: usize) -> Mode {
    Mode::UpTo(limit.try_into().unwrap())
}

fn push<T>(producer: &Producer<T>, item: T) {
    assert!(producer.push(item).is_ok(), "not suspended");
}

fn pop_all<T>(queue: &Queue<T>) -> Vec<T> {
    std::iter::from_fn(|| queue.try_pop()).map(|popped| popped.item).collect()
}

#[track_caller]
fn check_resumes(resume: impl Into<Option<Resume>>, producer: &Producer<&str>) {
    assert_eq!(resume.into().map(|resume| resume.producer()), Some(producer.id()));
}

/// Returns a resume hook and a record of its calls.
fn recorder() -> (impl Fn(Resume) + Send + Sync + 'static, Arc<Mutex<Vec<ProducerId>>>) {
    let record = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&record);
    (move |resume: Resume| hook.lock().unwrap().push(resume.producer()), record)
}

#[test]
fn ids_are_numbered_by_registration() {
    let queue = Queue::<()>::new();
    let (first, second) = (queue.register(up_to(1)), queue.register(up_to(1)));
    assert!(first.id() < second.id());
    assert_eq!(second.id().to_string(), "2");
}

#[test]
fn the_default_mode_is_up_to_eight() {
    assert_eq!(Mode::default(), up_to(8));
    assert_eq!(Mode::DEFAULT_LIMIT.get(), 8);
}

#[test]
fn handles_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Queue<std::cell::Cell<u8>>>();
    check::<Producer<std::cell::Cell<u8>>>();
    check::<qmp_queue::Ticket<std::cell::Cell<u8>>>();
}

mod order {
    use super::*;

    #[test]
    fn the_newest_producer_goes_first_and_the_served_one_last() {
        let queue = Queue::new();
        let producers: Vec<_> = (0..3).map(|_| queue.register(up_to(8))).collect();
        for round in 0..2 {
            for (n, producer) in producers.iter().enumerate() {
                push(producer, (n, round));
            }
        }
        assert_eq!(pop_all(&queue), [(2, 0), (1, 0), (0, 0), (2, 1), (1, 1), (0, 1)]);
    }

    #[test]
    fn an_idle_producer_keeps_its_place() {
        let queue = Queue::new();
        let patient = queue.register(up_to(8));
        let busy = [queue.register(up_to(8)), queue.register(up_to(8))];
        for _ in 0..3 {
            for producer in &busy {
                push(producer, "busy");
            }
        }
        assert_eq!(queue.try_pop().unwrap().item, "busy");
        push(&patient, "patient");
        assert_eq!(queue.try_pop().unwrap().producer, busy[0].id(), "never served and newer");
        assert_eq!(queue.try_pop().unwrap().item, "patient");
    }

    #[test]
    fn the_order_survives_that_most_producers_are_cleared_or_closed() {
        let queue = Queue::new();
        let mut producers: Vec<_> = (0..200).map(|_| queue.register(up_to(8))).collect();
        for (n, producer) in producers.iter().enumerate() {
            push(producer, n);
        }
        producers.truncate(150);
        for producer in &producers[10..] {
            let _ = producer.clear();
        }
        for (n, producer) in producers.iter().enumerate().skip(140) {
            push(producer, n);
        }
        assert!(pop_all(&queue).into_iter().eq((140..150).rev().chain((0..10).rev())));
    }
}

mod suspension {
    use super::*;

    #[test]
    fn up_to_n_resumes_when_an_item_is_taken_from_a_full_queue() {
        let queue = Queue::new();
        let producer = queue.register(up_to(2));
        assert_eq!(producer.push("a"), Ok(Pushed::Ready));
        assert_eq!(producer.push("b"), Ok(Pushed::Suspended));
        assert_eq!(producer.push("c"), Err(PushError::Full("c")));
        check_resumes(queue.try_pop().unwrap().resume, &producer);
        assert_eq!(queue.try_pop().unwrap().resume, None);
    }

    #[test]
    fn one_in_progress_resumes_when_the_item_is_done() {
        let queue = Queue::new();
        let producer = queue.register(Mode::OneInProgress);
        assert_eq!(producer.push("a"), Ok(Pushed::Suspended));
        let popped = queue.try_pop().unwrap();
        assert_eq!(popped.resume, None);
        assert_eq!(producer.push("b"), Err(PushError::Full("b")));
        check_resumes(popped.ticket.done(), &producer);
        assert_eq!(producer.push("b"), Ok(Pushed::Suspended));
    }

    #[test]
    fn the_item_in_progress_may_widen_its_own_producers_mode() {
        let queue = Queue::new();
        let producer = queue.register(Mode::OneInProgress);
        push(&producer, "negotiate");
        let popped = queue.try_pop().unwrap();
        check_resumes(producer.set_mode(up_to(8)), &producer);
        push(&producer, "next");
        assert_eq!(popped.ticket.done(), None);
    }

    #[test]
    fn a_dropped_ticket_is_done() {
        let queue = Queue::new();
        let (hook, resumes) = recorder();
        let producer = queue.register_with_hook(Mode::OneInProgress, hook);
        push(&producer, "a");
        let consumer = catch_unwind(AssertUnwindSafe(|| {
            let _popped = queue.try_pop().unwrap();
            std::panic::resume_unwind(Box::new("the consumer's own"));
        }));
        assert!(consumer.is_err());
        assert_eq!(*resumes.lock().unwrap(), [producer.id()]);
        assert!(!producer.is_suspended());
    }
}

mod closing {
    use super::*;

    #[test]
    fn a_producer_takes_only_its_own_items_along() {
        let queue = Queue::new();
        let (gone, stays) = (queue.register(up_to(8)), queue.register(up_to(8)));
        push(&gone, "gone 1");
        push(&stays, "stays");
        push(&gone, "gone 2");
        assert_eq!(gone.close().items, ["gone 1", "gone 2"]);
        assert_eq!(gone.push("late"), Err(PushError::Closed("late")));
        assert!(gone.is_closed() && !gone.is_suspended() && gone.stats().is_none());
        assert_eq!(pop_all(&queue), ["stays"]);
    }

    #[test]
    fn closing_a_suspended_producer_resumes_it_once_even_with_an_item_in_progress() {
        let queue = Queue::new();
        let producer = queue.register(Mode::OneInProgress);
        push(&producer, "a");
        let popped = queue.try_pop().unwrap();
        check_resumes(producer.close().resume, &producer);
        assert_eq!(popped.ticket.done(), None);
        assert_eq!(producer.close().resume, None);
    }

    #[test]
    fn a_ticket_does_not_mistake_a_newcomer_for_its_producer() {
        let queue = Queue::new();
        let old = queue.register(Mode::OneInProgress);
        push(&old, "old");
        let popped = queue.try_pop().unwrap();
        drop(old);
        let new = queue.register(Mode::OneInProgress);
        push(&new, "new");
        let in_progress = queue.try_pop().unwrap();
        assert_eq!(popped.ticket.done(), None);
        assert!(new.is_suspended());
        check_resumes(in_progress.ticket.done(), &new);
    }

    #[test]
    fn the_queue_hands_everything_back_in_order_and_resumes_everybody() {
        let queue = Queue::new();
        let full = queue.register(up_to(2));
        let in_progress = queue.register(Mode::OneInProgress);
        push(&in_progress, "popped");
        let popped = queue.try_pop().unwrap();
        push(&full, "a");
        push(&full, "b");
        let closed = queue.close();
        assert_eq!(closed.items, [(full.id(), "a"), (full.id(), "b")]);
        let mut resumed: Vec<_> = closed.resumes.iter().map(Resume::producer).collect();
        resumed.sort();
        assert_eq!(resumed, [full.id(), in_progress.id()]);
        assert_eq!(popped.ticket.done(), None);
        assert_eq!(full.push("late"), Err(PushError::Closed("late")));
        assert!(queue.register(up_to(1)).is_closed());
        assert!(queue.is_closed() && queue.is_empty() && queue.pop().is_none());
        assert_eq!(queue.close().items, []);
    }

    #[test]
    fn a_finished_queue_is_popped_to_its_end() {
        let queue = Queue::new();
        let producer = queue.register(up_to(1));
        push(&producer, "a");
        queue.finish();
        assert_eq!(producer.push("late"), Err(PushError::Closed("late")));
        let popped = queue.pop().unwrap();
        assert_eq!(popped.item, "a");
        check_resumes(popped.resume, &producer);
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_finished_queue_can_be_closed() {
        let queue = Queue::new();
        let producer = queue.register(up_to(2));
        push(&producer, "a");
        queue.finish();
        assert_eq!(queue.close().items, [(producer.id(), "a")]);
        assert!(queue.pop().is_none() && queue.wakeups().recv().is_err());
        assert_eq!(producer.push("late").unwrap_err().into_inner(), "late");
    }

    #[test]
    fn the_last_handle_closes_the_queue() {
        let queue = Queue::new();
        let clone = queue.clone();
        let (hook, resumes) = recorder();
        let producer = queue.register_with_hook(up_to(1), hook);
        let item = Arc::new(());
        assert_eq!(producer.push(Arc::clone(&item)), Ok(Pushed::Suspended));
        drop(queue);
        assert!(!producer.is_closed());
        drop(clone);
        assert!(producer.is_closed());
        assert_eq!(*resumes.lock().unwrap(), [producer.id()]);
        assert_eq!(Arc::strong_count(&item), 1, "nobody can pop it");
    }

    #[test]
    fn a_sleeping_popper_wakes_up() {
        let queue = Queue::<()>::new();
        std::thread::scope(|scope| {
            let forever = scope.spawn(|| queue.pop().is_none());
            let selecting = scope.spawn(|| queue.wakeups().recv().is_err());
            let _ = queue.close();
            assert!(forever.join().unwrap());
            assert!(selecting.join().unwrap());
        });
    }
}

mod wake_up {
    use super::*;

    #[test]
    fn one_call_and_one_token_per_transition_from_idle_to_busy() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let queue = Queue::with_wake_hook(move || _ = counter.fetch_add(1, Ordering::Relaxed));
        let producers = [queue.register(up_to(8)), queue.register(up_to(8))];
        for transition in 1..=3 {
            for producer in &producers {
                push(producer, ());
                push(producer, ());
            }
            assert_eq!(calls.load(Ordering::Relaxed), transition);
            assert_eq!(queue.wakeups().try_iter().count(), 1);
            assert_eq!(pop_all(&queue).len(), 4);
        }
    }

    #[test]
    fn a_late_call_of_wakeups_finds_a_token_for_what_is_queued() {
        let queue = Queue::new();
        let producer = queue.register(up_to(8));
        push(&producer, ());
        assert_eq!(queue.wakeups().try_recv(), Ok(()));
        let closed = Queue::<()>::new();
        closed.finish();
        assert!(closed.wakeups().recv().is_err());
    }

    #[test]
    fn a_sleeping_popper_gets_the_item() {
        let queue = Queue::new();
        let producer = queue.register(up_to(8));
        std::thread::scope(|scope| {
            let poppers = [(); 3].map(|()| scope.spawn(|| queue.pop().unwrap().item));
            for item in 0..3 {
                push(&producer, item);
            }
            let mut popped = poppers.map(|popper| popper.join().unwrap());
            popped.sort_unstable();
            assert_eq!(popped, [0, 1, 2]);
        });
    }
}

mod select {
    use super::*;

    /// Pops in a loop of its own, beside other work, as someone who uses crossbeam-channel does.
    /// Returns the popped items and the other work.
    fn consume(queue: &Queue<u32>, other: &crossbeam_channel::Receiver<u32>) -> [Vec<u32>; 2] {
        let (mut items, mut others) = (Vec::new(), Vec::new());
        loop {
            select! {
                recv(queue.wakeups()) -> token => match token {
                    Ok(()) => while let Some(popped) = queue.try_pop() {
                        items.push(popped.item);
                    },
                    Err(_) => return [items, others],
                },
                recv(other) -> work => others.extend(work),
            }
        }
    }

    #[test]
    fn items_and_other_work_arrive_and_the_loop_ends() {
        let queue = Queue::new();
        // A rendezvous channel: what is sent has been received when `send` returns.
        let (other, work) = bounded(0);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| consume(&queue, &work));
            let pushers = [0, 100].map(|start| {
                let (resumed, resumes) = unbounded();
                let hook = move |_| resumed.send(()).unwrap();
                let producer = queue.register_with_hook(up_to(2), hook);
                scope.spawn(move || {
                    for item in start..start + 50 {
                        if producer.push(item).unwrap() == Pushed::Suspended {
                            resumes.recv().unwrap();
                        }
                    }
                    producer
                })
            });
            other.send(7).unwrap();
            let producers = pushers.map(|pusher| pusher.join().unwrap());
            other.send(8).unwrap();
            queue.finish();
            let [mut items, others] = consumer.join().unwrap();
            items.sort_unstable();
            assert!(items.into_iter().eq((0..50).chain(100..150)));
            assert_eq!(others, [7, 8]);
            drop(producers);
        });
    }

    /// Counts how often a consumer is woken, until it would sleep or is told of the end.
    fn turns(queue: &Queue<&str>) -> (usize, TryRecvError) {
        for turn in 0..10 {
            match queue.wakeups().try_recv() {
                Ok(()) => while queue.try_pop().is_some_and(|popped| popped.more) {},
                Err(reason) => return (turn, reason),
            }
        }
        panic!("woken ten times for nothing");
    }

    #[test]
    fn a_finished_queue_sleeps_while_an_item_is_held_back() {
        let queue = Queue::new();
        let producer = queue.register(Mode::Serial(Mode::DEFAULT_LIMIT));
        push(&producer, "in progress");
        push(&producer, "held back");
        let first = queue.try_pop().unwrap();
        assert_eq!(turns(&queue), (0, TryRecvError::Empty));
        queue.finish();
        assert_eq!(turns(&queue), (0, TryRecvError::Empty), "nothing to pop, but not the end");
        assert_eq!(first.ticket.done(), None);
        assert_eq!(turns(&queue), (1, TryRecvError::Disconnected), "popped, and that is the end");
    }

    #[test]
    fn a_finished_queue_ends_when_what_is_held_back_is_cleared() {
        let queue = Queue::new();
        let producer = queue.register(Mode::Serial(Mode::DEFAULT_LIMIT));
        push(&producer, "in progress");
        push(&producer, "held back");
        let first = queue.try_pop().unwrap();
        queue.finish();
        assert_eq!(producer.clear().items, ["held back"]);
        assert_eq!(turns(&queue), (0, TryRecvError::Disconnected));
        drop(first);
    }
}

mod user_code {
    use super::*;

    /// An item that uses its queue when it is dropped.
    struct Reentrant(Option<Queue<Reentrant>>);

    impl Drop for Reentrant {
        fn drop(&mut self) {
            if let Some(queue) = self.0.take() {
                assert!(queue.is_empty());
            }
        }
    }

    #[test]
    fn items_may_use_the_queue_while_they_are_dropped() {
        let queue = Queue::new();
        let producer = queue.register(up_to(8));
        push(&producer, Reentrant(Some(queue.clone())));
        drop(producer.clear());
        push(&producer, Reentrant(Some(queue.clone())));
        drop(producer);
        push(&queue.register(up_to(8)), Reentrant(Some(queue.clone())));
        drop(queue.close());
    }

    #[test]
    fn an_item_that_panics_in_its_drop_leaves_the_queue_whole() {
        struct Bomb(bool);
        impl Drop for Bomb {
            fn drop(&mut self) {
                if self.0 {
                    std::panic::resume_unwind(Box::new("the item's own"));
                }
            }
        }
        let queue = Queue::new();
        let (bomber, bystander) = (queue.register(up_to(8)), queue.register(up_to(8)));
        push(&bomber, Bomb(true));
        push(&bystander, Bomb(false));
        assert!(catch_unwind(AssertUnwindSafe(|| drop(bomber))).is_err());
        assert_eq!(queue.try_pop().unwrap().producer, bystander.id());
        push(&bystander, Bomb(false));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn hooks_may_use_the_queue() {
        let slot: Arc<Mutex<Option<Queue<u8>>>> = Arc::default();
        let in_hook = Arc::clone(&slot);
        let queue = Queue::with_wake_hook(move || {
            let queue = in_hook.lock().unwrap().clone().unwrap();
            assert_eq!(queue.try_pop().unwrap().item, 1);
        });
        *slot.lock().unwrap() = Some(queue.clone());
        push(&queue.register(up_to(8)), 1);
        assert!(queue.is_empty());
        *slot.lock().unwrap() = None;
    }

    #[test]
    fn a_panicking_hook_spoils_nothing() {
        let silent = || std::panic::resume_unwind(Box::new("the hook's own"));
        let queue = Queue::with_wake_hook(silent);
        let producer = queue.register_with_hook(up_to(1), move |_| silent());
        assert_eq!(producer.push("a"), Ok(Pushed::Suspended));
        assert_eq!(queue.try_pop().unwrap().item, "a");
        assert_eq!(producer.push("b"), Ok(Pushed::Suspended));
        assert_eq!(queue.close().items.len(), 1);
    }
}

mod stats {
    use super::*;

    #[test]
    fn depth_served_and_suspended() {
        let queue = Queue::new();
        let producer = queue.register(up_to(2));
        push(&producer, 1);
        push(&producer, 2);
        let popped = queue.try_pop().unwrap();
        push(&producer, 3);
        let stats = producer.stats().unwrap();
        assert_eq!(
            (stats.queued, stats.served, stats.suspended, stats.in_progress),
            (2, 1, true, 0)
        );
        assert_eq!((stats.producer, stats.mode), (producer.id(), up_to(2)));
        drop(popped);
    }

    #[test]
    fn all_producers_are_listed_and_the_queue_can_be_used_meanwhile() {
        let queue = Queue::new();
        let producers: Vec<_> = (0..200).map(|_| queue.register(up_to(8))).collect();
        let mut listed = Vec::new();
        for stats in queue.stats() {
            push(&producers[0], ());
            drop(queue.try_pop());
            listed.push(stats.producer);
        }
        listed.sort();
        assert_eq!(listed, producers.iter().map(Producer::id).collect::<Vec<_>>());
    }
}

#[test]
fn groups_are_served_in_turn_however_many_producers_they_have() {
    let queue = Queue::new();
    let register =
        |group, many| (0..many).map(|_| queue.register_in(group, Mode::default())).collect();
    let groups: [Vec<Producer<usize>>; 3] = [register(7, 50), register(8, 5), register(9, 1)];
    for (group, producers) in groups.iter().enumerate() {
        for producer in producers {
            for _ in 0..4 {
                let _ = producer.push(group).unwrap();
            }
        }
    }
    let mut served = [0usize; 3];
    while let Some(popped) = queue.try_pop() {
        served[popped.item] += 1;
        let [many, few, one] = served;
        let is_fair = |other: usize, all: usize| other == all || many.abs_diff(other) <= 1;
        assert!(is_fair(few, 20) && is_fair(one, 4), "{served:?}");
    }
    assert_eq!(served, [200, 20, 4]);
}

#[test]
fn a_new_group_is_served_before_others_and_groups_that_have_gone_leave_nothing() {
    let queue = Queue::new();
    let busy = queue.register_in(0, Mode::default());
    for group in 1..10_000 {
        let _ = busy.push(0).unwrap();
        let new = queue.register_in(group, Mode::default());
        let _ = new.push(group).unwrap();
        if group % 2 == 0 {
            drop(new);
        } else {
            assert_eq!(queue.try_pop().unwrap().item, group);
        }
        assert_eq!(queue.try_pop().unwrap().item, 0);
        assert!(queue.is_idle());
    }
}
