// SPDX-License-Identifier: MIT OR Apache-2.0
//! One engine for many: alone in its process, so that the threads are those of this test.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use qmp_dispatch::Dispatcher;
use qmp_dispatch::proto::Layout;
use qmp_server::{Address, Discipline, Engine, Mux, Server, system_time, version};

const MUXES: usize = 200;

/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(30);

/// One end of a connection, line by line.
struct Lines(BufReader<UnixStream>);

impl Lines {
    fn new(stream: UnixStream) -> Lines {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Lines(BufReader::new(stream))
    }

    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// The next line must have this in it.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let line = self.line();
        assert!(line.contains(text), "no {text} in {line}");
        line
    }
}

/// The id of a request that ends with it.
fn id_of(request: &str) -> &str {
    let (_, id) = request.rsplit_once("\"id\":").unwrap();
    id.trim_end().trim_end_matches('}')
}

/// How many threads the engines of this process have.
fn engine_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("qmp-io")).count()
}

#[test]
fn two_hundred_muxes_and_their_servers_share_the_two_threads_of_one_engine()
-> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    // On a busy machine a thread may be held up for so long that another one would step in and be replaced.
    let engine = Engine::builder().most_threads(2).start()?;
    let mut sites = Vec::new();
    for number in 0..MUXES {
        let path = folder.path().join(format!("{number}.sock"));
        let listener = UnixListener::bind(&path)?;
        let mux = Mux::new(Address::Unix(path).into())?;
        let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
        let (ours, theirs) = UnixStream::pair()?;
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .stay()
            .serve(Box::new(theirs), Layout::Compact);
        mux.serve_on(&engine, server)?;
        sites.push((listener, mux, ours));
    }
    let mut served = Vec::new();
    for (number, (listener, mux, ours)) in sites.into_iter().enumerate() {
        let mut upstream = Lines::new(listener.accept()?.0);
        upstream.send(&format!(
            r#"{{"QMP": {{"version": {{"qemu": {{"major": {number}}}}}, "capabilities": ["oob"]}}}}"#
        ));
        let request = upstream.expect("qmp_capabilities");
        upstream.send(&format!(r#"{{"return": {{}}, "id": {}}}"#, id_of(&request)));
        let mut client = Lines::new(ours);
        client.expect(&format!(r#""major": {number}}}"#));
        client.send(r#"{"execute": "qmp_capabilities"}"#);
        client.expect("return");
        served.push((upstream, mux, client));
    }
    // All at once, and answered in another order.
    for (number, (_, _, client)) in served.iter_mut().enumerate() {
        client.send(&format!(r#"{{"execute": "query-{number}", "id": "x"}}"#));
    }
    for (number, (upstream, ..)) in served.iter_mut().enumerate().rev() {
        let request = upstream.expect(&format!("\"query-{number}\""));
        upstream.send(&format!(r#"{{"return": {number}, "id": {}}}"#, id_of(&request)));
    }
    for (number, (_, _, client)) in served.iter_mut().enumerate() {
        client.expect(&format!(r#"{{"return": {number}, "id": "x"}}"#));
    }
    assert!(engine_threads() <= 2, "{} threads", engine_threads());
    for (_, mux, _) in served {
        mux.shutdown();
        mux.wait();
    }
    Ok(())
}
