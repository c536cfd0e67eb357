// SPDX-License-Identifier: MIT OR Apache-2.0
//! A job runner for several tenants: whoever submits most does not keep the others waiting.

use std::sync::mpsc;
use std::thread;

use qmp_queue::{Mode, Producer, Queue};

const TENANTS: [&str; 3] = ["one", "two", "three"];
const WORKERS: usize = 2;
const JOBS_EACH: u32 = 1000;

struct Job {
    tenant: &'static str,
    number: u32,
}

/// Submits all jobs of a tenant, waiting whenever it has as many queued as it may. The producer is
/// handed out: what it has queued would go away with it.
fn submit_all(queue: &Queue<Job>, tenant: &'static str) -> Producer<Job> {
    let (resume, resumed) = mpsc::channel();
    let producer = queue.register_with_hook(Mode::default(), move |_| _ = resume.send(()));
    for number in 0..JOBS_EACH {
        while producer.is_suspended() {
            resumed.recv().expect("the hook lives as long as its producer");
        }
        let _ = producer.push(Job { tenant, number }).expect("only this thread pushes");
    }
    producer
}

fn work(queue: &Queue<Job>, finished: &mpsc::Sender<Job>) {
    while let Some(popped) = queue.pop() {
        finished.send(popped.item).expect("somebody keeps the books");
    }
}

/// With nobody else about: who is served is a matter of whose turn it is.
fn turns() {
    let queue = Queue::new();
    let bulk = queue.register(Mode::default());
    for number in 0..5 {
        let _ = bulk.push(Job { tenant: "bulk", number }).expect("less than eight are queued");
    }
    let urgent = queue.register(Mode::default());
    let _ = urgent.push(Job { tenant: "urgent", number: 0 }).expect("nothing is queued");
    let order: Vec<_> =
        std::iter::from_fn(|| queue.try_pop()).map(|popped| popped.item.tenant).collect();
    assert_eq!(order, ["urgent", "bulk", "bulk", "bulk", "bulk", "bulk"]);
}

fn main() {
    turns();

    let queue = Queue::new();
    let (finished, books) = mpsc::channel();
    let mut done: Vec<Job> = thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (queue, finished) = (queue.clone(), finished.clone());
            scope.spawn(move || work(&queue, &finished));
        }
        drop(finished);
        let tenants = TENANTS.map(|tenant| {
            let queue = &queue;
            scope.spawn(move || submit_all(queue, tenant))
        });
        let _producers = tenants.map(|tenant| tenant.join().expect("tenants do not panic"));
        queue.finish();
        books.into_iter().collect()
    });

    done.sort_by_key(|job| (job.tenant, job.number));
    for tenant in TENANTS {
        let numbers = done.iter().filter(|job| job.tenant == tenant).map(|job| job.number);
        assert!(numbers.eq(0..JOBS_EACH), "every job of {tenant} has been done, and once");
    }
    println!("{} jobs", done.len());
}
