// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program with an epoll loop of its own: the loop has a timer to look after, and executes QMP
//! commands in between. A client on another thread asks it something.

use std::cell::Cell;
use std::error::Error;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use qmp_server::dispatch::proto::Error as QmpError;
use qmp_server::dispatch::{Context, Dispatcher, Registry, qapi_types};
use qmp_server::{Address, Control, Embedded, Listen, Server, system_time, version};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

// Nothing else in the manifest: neither serde nor schemars, and this crate by this path alone.
qapi_types! {
    /// What the timer has done.
    #[derive(Clone, Copy)]
    struct Timer<T> {
        ticks_so_far: T,
        limit: Option<Ticks>,
    }

    #[derive(Clone, Copy)]
    struct Ticks(u64);
}

thread_local! {
    static TICKS: Cell<u64> = const { Cell::new(0) };
}

const TIMER: u64 = 0;
const QMP: u64 = 1;

fn embed(path: &Path) -> Result<Embedded, Box<dyn Error>> {
    let mut registry = Registry::new();
    // Both run on the loop's own thread, so they see its thread-local.
    registry.command("query-ticks", |_: &Context| {
        Ok::<_, QmpError>(Timer { ticks_so_far: TICKS.get(), limit: None })
    })?;
    registry.command("x-check", |_: &Context, timer: Timer<u64>| {
        Ok::<_, QmpError>(timer.limit.is_none_or(|Ticks(limit)| timer.ticks_so_far < limit))
    })?;
    registry.command("quit", |context: &Context| {
        let control = context.monitor().local::<Control>();
        control.ok_or_else(|| QmpError::generic("no server"))?.shutdown();
        Ok::<_, QmpError>(())
    })?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    Ok(Server::new(dispatcher).listen(&Listen::new(Address::Unix(path.to_owned())))?.embed()?)
}

fn run(qmp: Embedded) -> Result<u64, Box<dyn Error>> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let tick = Duration::from_millis(1).try_into()?;
    let every = Itimerspec { it_interval: tick, it_value: tick };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
    epoll::add(&epoll, &qmp, EventData::new_u64(QMP), EventFlags::IN)?;
    let mut executed = 0;
    while !qmp.is_stopping() {
        let mut events = Vec::with_capacity(2);
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events {
            if event.data.u64() == QMP {
                qmp.dispatch_one();
                executed += 1;
            } else if rustix::io::read(&timer, &mut [0; 8]).is_ok() {
                TICKS.set(TICKS.get() + 1);
            }
        }
    }
    qmp.wait();
    Ok(executed)
}

fn ask(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"{'execute': 'qmp_capabilities'} {'execute': 'query-ticks', 'id': 1}")?;
    stream.write_all(
        b"{'execute': 'x-check', 'arguments': {'ticks-so-far': 1, 'limit': 2}, 'id': 3}
          {'execute': 'x-check', 'arguments': {'ticks': 1}, 'id': 4}",
    )?;
    stream.write_all(b"{'execute': 'quit', 'id': 2}")?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("event-loop-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("qmp.sock");
    let qmp = embed(&path)?;
    let client = std::thread::spawn({
        let path = path.clone();
        move || ask(&path)
    });
    let executed = run(qmp)?;
    let said = client.join().expect("the client does not panic")?;
    std::fs::remove_dir_all(&folder)?;
    assert!(said.starts_with(r#"{"QMP": "#), "{said}");
    assert_eq!(said.matches(r#"{"return": "#).count(), 4, "{said}");
    assert!(said.contains(r#"{"return": {"ticks-so-far": "#), "{said}");
    assert!(said.contains(r#"{"return": true, "id": 3}"#), "{said}");
    assert!(said.contains("Parameter 'ticks-so-far' is missing"), "{said}");
    assert!(said.ends_with("\"id\": 2}\r\n"), "{said}");
    assert!(executed >= 3, "every command was executed by the loop");
    println!("{executed} turns of the loop had commands");
    Ok(())
}
