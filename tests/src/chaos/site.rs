// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server, the ways in, and what it holds.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;

use crate::bench::machine::resident_kib;
use crate::certificates::Authority;
use crate::channel::TlsClient;
use crate::connection::Connection;
use crate::endpoint::{Endpoint, LOCALHOST};
use crate::json::Layout;
use crate::server::{LIMIT, Server};
use crate::waiting::{retry, wait_until};

/// What the allocator may keep for itself, in KiB: it cannot give back what lies between blocks that are used.
const SLACK_KIB: u64 = 8 << 10;
/// Without these, glibc's allocator keeps more and more for itself once a large block has been freed, and what the
/// server keeps could not be told from that.
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

#[derive(Debug)]
pub(super) struct Doors {
    /// A Unix socket, TCP, and TLS.
    pub(super) endpoints: [Endpoint; 3],
    /// The port at which TLS is spoken.
    pub(super) tls_port: u16,
}

/// A server that listens everywhere.
pub(super) struct Site {
    server: Server,
    doors: Arc<Doors>,
    /// Resident memory and descriptors when there was no client yet.
    before: (u64, usize),
    _certificates: TempDir,
}

impl Site {
    pub(super) fn open() -> Result<Site, String> {
        let cannot = |error: std::io::Error| format!("cannot make certificates: {error}");
        let dir = tempfile::tempdir().map_err(cannot)?;
        let authority = Authority::new(dir.path(), "authority").map_err(cannot)?;
        let identity = authority.issue("server", &[LOCALHOST]).map_err(cannot)?;
        let tls = format!(
            "tls:127.0.0.1:0,cert={},key={}",
            identity.cert.display(),
            identity.key.display()
        );
        let arguments = [
            "serve",
            "--name",
            "confvm",
            // Mistakes of clients are not errors of the server.
            "--log-filter",
            "error",
            // So that clients that do not read are disconnected, too.
            "--limit",
            "stalled=1",
            "--listen",
            "unix:{sock}",
            "--listen",
            "tcp:127.0.0.1:0",
            "--listen",
            &tls,
        ];
        let mut server = Server::start_in_environment(arguments, &ALLOCATOR);
        let [tcp_port, tls_port] = server.ports()[..] else {
            return Err(format!("it listens elsewhere: {}", server.process().stderr()));
        };
        let client = TlsClient { ca: authority.certificate(), identity: None };
        let endpoints = [
            server.endpoint(),
            Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: tcp_port },
            Endpoint::Tls { port: tls_port, client },
        ];
        let doors = Arc::new(Doors { endpoints, tls_port });
        let mut site = Site { server, doors, before: (0, 0), _certificates: dir };
        site.use_once()?;
        site.before = site.settled()?;
        Ok(site)
    }

    /// Connects each kind of client once, so that everything that is allocated on first use exists.
    fn use_once(&self) -> Result<(), String> {
        for endpoint in &self.doors.endpoints {
            let mut connection = Connection::open(endpoint, Layout::Compact, LIMIT)
                .map_err(|error| error.to_string())?;
            connection.read_message(Instant::now() + LIMIT).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    pub(super) fn doors(&self) -> &Arc<Doors> {
        &self.doors
    }

    /// Waits until the server holds no more memory and descriptors than before the clients came. Returns its memory
    /// before, after and at most, and its descriptors.
    pub(super) fn expect_as_before(&mut self) -> Result<([u64; 3], usize), String> {
        let (memory_before, descriptors_before) = self.before;
        let (memory, descriptors) = retry(LIMIT, || {
            let (memory, descriptors) = self.holds()?;
            if descriptors <= descriptors_before && memory <= memory_before + SLACK_KIB {
                return Ok((memory, descriptors));
            }
            Err(format!(
                "the server holds {memory} KiB and {descriptors} descriptors, before the clients came \
                 {memory_before} and {descriptors_before}"
            ))
        })?;
        let most = self.most_memory()?;
        self.check_log()?;
        Ok(([memory_before, memory, most], descriptors))
    }

    /// Ends the server, which has to do so in order.
    pub(super) fn close(mut self) -> Result<(), String> {
        self.server.process().stop().map_err(|error| error.to_string())?;
        let status = self.server.wait();
        self.check_log()?;
        if status.success() { Ok(()) } else { Err(format!("the server has ended with {status}")) }
    }

    /// Returns memory and descriptors without clients. Waits until the server has noticed that all clients have left but the
    /// one that asks, whose descriptor does not count.
    fn settled(&mut self) -> Result<(u64, usize), String> {
        let mut operator = self.server.negotiated();
        wait_until(|| {
            let clients = operator.execute("__org.qmp-server_query-clients");
            clients.as_array().is_some_and(|clients| clients.len() == 1)
        });
        let (memory, descriptors) = self.holds()?;
        Ok((memory, descriptors - 1))
    }

    fn holds(&mut self) -> Result<(u64, usize), String> {
        let pid = self.server.process().child().id();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        let gone = |error: std::io::Error| format!("the server cannot be looked at ({error})");
        match (resident_kib(pid), descriptors) {
            (Ok(memory), Ok(descriptors)) => Ok((memory, descriptors)),
            (Err(error), _) | (_, Err(error)) => {
                Err(format!("{}: {}", gone(error), self.server.process().stderr()))
            }
        }
    }

    /// The most resident memory that the server ever had, in KiB.
    fn most_memory(&mut self) -> Result<u64, String> {
        let pid = self.server.process().child().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        field.and_then(|kib| kib.trim().parse().ok()).ok_or_else(|| "no VmHWM".to_owned())
    }

    /// The server must have said nothing but where it listens.
    fn check_log(&mut self) -> Result<(), String> {
        let log = self.server.process().stderr();
        let mut said = log.lines().filter(|line| !line.contains("listening at"));
        said.next().map_or(Ok(()), |line| Err(format!("the server says: {line}")))
    }
}
