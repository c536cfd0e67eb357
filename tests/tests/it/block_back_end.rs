// SPDX-License-Identifier: MIT OR Apache-2.0
//! The example of a block back end, with QEMU's tools as its users.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use qapi::qmp::{Event, block_resize, query_block, query_blockstats, quit};
use qapi::{Qmp, Stream};
use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::process::{Process, Signal, run};
use tests::programs::{find, find_python};
use tests::server::{Client, LIMIT, example};

const MEBIBYTE: u64 = 1 << 20;
/// The largest file that the back end can write.
const WRITE_LIMIT: u64 = 4 * MEBIBYTE;

/// The back end with two devices, `disk0` of one mebibyte, and `disk1`, which is larger than it can write.
struct BackEnd {
    process: Process,
    dir: TempDir,
}

impl BackEnd {
    fn start() -> BackEnd {
        let dir = tempfile::Builder::new().prefix("qmp-block-").tempdir().unwrap();
        for (name, size) in [("disk0.img", MEBIBYTE), ("disk1.img", 4 * WRITE_LIMIT)] {
            File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
        }
        // Sizes of files are limited in units of 512 bytes.
        let script = format!(r#"ulimit -f {} && exec "$@""#, WRITE_LIMIT / 512);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(example("nbd"));
        command.args(["--qmp", "unix:qmp.sock", "--socket", "nbd.sock"]);
        command.args(["disk0=disk0.img", "disk1=disk1.img"]).current_dir(dir.path());
        let process = Process::start(&mut command).unwrap();
        let mut back_end = BackEnd { process, dir };
        let endpoint = back_end.endpoint();
        back_end.process.expect_ready(&endpoint);
        back_end
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path("qmp.sock"))
    }

    /// Waits for it to exit; it must leave only the files of its devices behind.
    fn end(mut self) -> ExitStatus {
        let status = self.process.wait(LIMIT).unwrap();
        let status = status.unwrap_or_else(|| panic!("it stays: {}", self.process.stderr()));
        let left = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["disk0.img", "disk1.img"]);
        status
    }
}

#[test]
fn qemus_client_controls_it_while_qemus_tools_read_and_write() {
    let Some(python) = find_python("python") else { return };
    for tool in ["qemu-io", "qemu-img"] {
        if find(tool, "install qemu-utils").is_none() {
            return;
        }
    }
    let back_end = BackEnd::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/block_back_end.py");
    let mut command = Command::new(python);
    command.arg(script).args(["qmp.sock", "nbd.sock", "disk0.img", "disk1.img"]);
    command.arg(WRITE_LIMIT.to_string()).current_dir(back_end.dir.path());
    // This takes longer, and has its own time limit.
    let finished = run(&mut command, "", 5 * LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:#?}; {}", back_end.process.stderr());
    assert_eq!(back_end.end().code(), Some(0));
}

#[test]
fn the_client_from_crates_io_finds_the_types_that_it_knows() {
    let back_end = BackEnd::start();
    let reader = UnixStream::connect(back_end.path("qmp.sock")).unwrap();
    reader.set_read_timeout(Some(LIMIT)).unwrap();
    let writer = reader.try_clone().unwrap();
    let mut client = Qmp::new(Stream::new(BufReader::new(reader), writer));
    client.handshake().unwrap();
    let size = 3 * MEBIBYTE as i64 / 2;
    let resize = block_resize { device: Some("disk0".to_owned()), node_name: None, size };
    client.execute(&resize).unwrap();
    let devices = client.execute(&query_block {}).unwrap();
    let sizes = devices.iter().map(|device| {
        let inserted = device.inserted.as_ref().expect("a medium");
        (device.device.as_str(), inserted.file.as_str(), inserted.image.base.virtual_size)
    });
    let expected = [("disk0", "disk0.img", size), ("disk1", "disk1.img", 4 * WRITE_LIMIT as i64)];
    assert_eq!(sizes.collect::<Vec<_>>(), expected);
    let stats = client.execute(&query_blockstats { query_nodes: None }).unwrap();
    assert_eq!(stats.len(), 2);
    client.execute(&quit {}).unwrap();
    assert!(client.events().any(|event| matches!(event, Event::SHUTDOWN { .. })));
    assert_eq!(back_end.end().code(), Some(0));
}

#[test]
fn a_signal_ends_it_in_order() {
    let back_end = BackEnd::start();
    let mut client = Client::connect(&back_end.endpoint());
    client.negotiate("{}");
    back_end.process.signal(Signal::TERM).unwrap();
    let shutdown = client.receive();
    let data = shutdown.get("data").map(ToString::to_string);
    assert_eq!(data.as_deref(), Some(r#"{"guest": false, "reason": "host-signal"}"#));
    client.expect_event("BLOCK_EXPORT_DELETED");
    client.expect_event("BLOCK_EXPORT_DELETED");
    client.expect_end();
    assert_eq!(back_end.end().code(), Some(0));
}

#[track_caller]
fn refused(socket: &str, devices: &[&str], complaint: &str) {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap();
    let mut command = Command::new(example("nbd"));
    command.args(["--qmp", "unix:qmp.sock", "--socket", socket]).args(devices);
    let finished = run(command.current_dir(dir.path()), "", LIMIT).unwrap();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    assert_eq!(finished.stderr, format!("nbd: {complaint}\n"));
}

#[test]
fn what_it_cannot_serve_it_says() {
    let none = "No such file or directory (os error 2)";
    refused("nbd.sock", &["a=none"], &format!("cannot open none: {none}"));
    refused("nbd.sock", &["a=disk.img", "a=disk.img"], "there are two devices 'a'");
    refused("no/nbd.sock", &["a=disk.img"], &format!("cannot listen at no/nbd.sock: {none}"));
}
