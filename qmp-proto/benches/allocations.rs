// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many allocations it takes to read a small command.

mod samples;

use qmp_proto::{Bands, Reader, Request};

fn main() {
    println!("allocations per command, with its parts kept:");
    // The buffers of a reader are allocated once, and not for every message.
    let mut reader = Reader::default();
    let _ = reader.read(&mut samples::MEMBERS.as_bytes());
    for message in samples::SMALL {
        let mut input = message.as_bytes();
        let mut request = None;
        let allocated = allocation_counter::measure(|| {
            let message = reader.read(&mut input).expect("complete").expect("well-formed");
            request = Request::parse(&message, Bands::Both).ok();
        });
        assert!(request.is_some());
        println!("  {}  {message}", allocated.count_total);
    }
}
