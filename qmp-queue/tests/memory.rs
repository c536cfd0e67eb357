// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of an idle producer, by an allocator that counts. There is one test only, because the
//! count is that of the whole process.

use std::alloc::System;

use qmp_queue::{Mode, Producer, Queue};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PRODUCERS: usize = if cfg!(miri) { 1_000 } else { 100_000 };
const STATED: usize = 256;

fn bytes_held(region: &Region<'_, System>) -> usize {
    let stats = region.change();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[test]
fn an_idle_producer_takes_no_more_than_stated() {
    let queue = Queue::<[u64; 32]>::new();
    let mut producers = Vec::with_capacity(PRODUCERS);
    let region = Region::new(ALLOCATOR);
    producers.extend((0..PRODUCERS).map(|_| queue.register(Mode::default())));
    let fresh = bytes_held(&region) / PRODUCERS + size_of::<Producer<[u64; 32]>>();
    println!("an idle producer takes {fresh} bytes, its handle included");
    assert!(fresh <= STATED, "{fresh} bytes");

    // Being busy leaves nothing behind: all producers share the buffers.
    for producer in &producers {
        while producer.push([0; 32]).is_ok() {
            drop(queue.try_pop());
            if producer.stats().unwrap().served == 8 {
                break;
            }
        }
    }
    let after_service = bytes_held(&region) / PRODUCERS + size_of::<Producer<[u64; 32]>>();
    assert!(after_service <= STATED, "{after_service} bytes once it has been busy");

    // Nor does being busy at the same time, when each needs a buffer.
    for producer in &producers {
        assert!(producer.push([0; 32]).is_ok());
    }
    while queue.try_pop().is_some() {}
    let after_burst = bytes_held(&region) / PRODUCERS + size_of::<Producer<[u64; 32]>>();
    println!("and {after_burst} bytes after a burst");
    assert!(after_burst <= STATED, "{after_burst} bytes after a burst");

    drop(producers);
    let before = bytes_held(&region);
    for _ in 0..PRODUCERS {
        assert!(queue.register(Mode::default()).push([0; 32]).is_ok());
    }
    assert!(bytes_held(&region) < before + 64 * 1024, "clients that come, push and go");

    let again: Vec<_> = (0..PRODUCERS).map(|_| queue.register(Mode::default())).collect();
    let reused = (bytes_held(&region) - size_of_val(&again[..])) / PRODUCERS;
    assert!(reused <= STATED, "{reused} bytes once others have come and gone");
}
