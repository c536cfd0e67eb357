// SPDX-License-Identifier: MIT OR Apache-2.0
//! A main loop that waits for the queue and for other channels in one `select!`.
//!
//! `wakeups()` receives a token when the queue goes from idle to busy. The loop takes one item each
//! turn and looks at the other channels in between, so it does not wait while there are more items.

use std::thread;

use crossbeam_channel::{Receiver, bounded, select, unbounded};
use qmp_queue::{Mode, Popped, Pushed, Queue};

const CLIENTS: u32 = 3;
const REQUESTS_EACH: u32 = 20;

enum Control {
    Report,
    Shutdown,
}

/// Serves until it is told to shut down and everything that was accepted has been served. Returns the
/// number of requests.
fn serve(queue: &Queue<u32>, control: &Receiver<Control>) -> u32 {
    let mut served = 0;
    let mut more = false;
    loop {
        if more {
            select! {
                recv(control) -> message => obey(message.ok(), queue, served),
                default => {}
            }
        } else {
            select! {
                recv(queue.wakeups()) -> token => if token.is_err() {
                    return served;
                },
                recv(control) -> message => obey(message.ok(), queue, served),
            }
        }
        more = match queue.try_pop() {
            Some(Popped { ticket, more, .. }) => {
                served += 1;
                // Resumes go to the clients' hooks.
                let _ = ticket.done();
                more
            }
            None => false,
        };
    }
}

fn obey(message: Option<Control>, queue: &Queue<u32>, served: u32) {
    match message {
        Some(Control::Report) => println!("{served} served, {} waiting", queue.len()),
        Some(Control::Shutdown) => queue.finish(),
        None => {}
    }
}

fn run() -> u32 {
    let queue = Queue::new();
    let (controller, control) = bounded(0);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&queue, &control));
        let clients = [(); CLIENTS as usize].map(|()| {
            let (resumed, resumes) = unbounded();
            let hook = move |_| resumed.send(()).unwrap_or_default();
            // Requests of one client are served one after the other, and four may wait.
            let client = queue.register_with_hook(Mode::Serial(4.try_into().unwrap()), hook);
            scope.spawn(move || {
                for request in 0..REQUESTS_EACH {
                    if client.push(request) == Ok(Pushed::Suspended) {
                        resumes.recv().expect("the hook lives as long as the producer");
                    }
                }
                client
            })
        });
        controller.send(Control::Report).expect("the server runs until it is told to end");
        // Dropping a client would drop what it has queued.
        let clients = clients.map(|client| client.join().expect("clients do not panic"));
        controller.send(Control::Shutdown).expect("the server runs until it is told to end");
        let served = server.join().expect("the server does not panic");
        drop(clients);
        served
    })
}

fn main() {
    println!("{} requests served", run());
}

#[test]
fn everything_is_served_before_the_loop_ends() {
    assert_eq!(run(), CLIENTS * REQUESTS_EACH);
}
