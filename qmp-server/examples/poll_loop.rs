// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program with an epoll loop of its own, which has a clock to look after and executes commands
//! in between: `poll_loop PATH`, then for example `qmp-server call unix:PATH x-ticks`.

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use qmp_dispatch::proto::Error as QmpError;
use qmp_dispatch::{Context, Dispatcher, Registry};
use qmp_server::{Address, Control, Embedded, Listen, Server, system_time, version};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

thread_local! {
    /// Commands are executed on the loop's thread, so what they share with it needs no lock.
    static TICKS: Cell<u64> = const { Cell::new(0) };
}

const CLOCK: u64 = 0;
const QMP: u64 = 1;

fn embed(path: &Path) -> Result<Embedded, Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.command("x-ticks", |_: &Context| Ok::<_, QmpError>(TICKS.get()))?;
    registry.command("quit", |context: &Context| {
        let control = context.monitor().local::<Control>();
        control.ok_or_else(|| QmpError::generic("not behind a server"))?.shutdown();
        Ok::<_, QmpError>(())
    })?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);
    Ok(Server::new(dispatcher).listen(&Listen::new(Address::Unix(path.to_owned())))?.embed()?)
}

fn run(qmp: Embedded, tick: Duration) -> Result<(), Box<dyn Error>> {
    let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    let every = Itimerspec { it_interval: tick.try_into()?, it_value: tick.try_into()? };
    timerfd_settime(&clock, TimerfdTimerFlags::empty(), &every)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &clock, EventData::new_u64(CLOCK), EventFlags::IN)?;
    epoll::add(&epoll, &qmp, EventData::new_u64(QMP), EventFlags::IN)?;
    while !qmp.is_stopping() {
        let mut events = Vec::with_capacity(2);
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events {
            if event.data.u64() == QMP {
                // One at a time: the clock is looked after in between.
                qmp.dispatch_one();
            } else if rustix::io::read(&clock, &mut [0; 8]).is_ok() {
                TICKS.set(TICKS.get() + 1);
            }
        }
    }
    qmp.wait();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("where? poll_loop PATH")?;
    run(embed(path.as_ref())?, Duration::from_secs(1))
}

#[test]
fn commands_are_executed_between_ticks() {
    use std::io::{Read, Write};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let qmp = embed(&path).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.write_all(b"{'execute': 'qmp_capabilities'} {'execute': 'x-ticks'}").unwrap();
    client.write_all(b"{'execute': 'quit'}").unwrap();
    run(qmp, Duration::from_millis(1)).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said.matches(r#"{"return": "#).count(), 3, "{said}");
}
