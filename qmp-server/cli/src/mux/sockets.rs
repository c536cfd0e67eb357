// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets of upstream servers that are named, as they appear: clients of a mux are refused until it has connected, so it is
//! not to notice a server seconds after that listens. The system tells of them (inotify).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// How often the way to a socket is looked at anew because a folder has come meanwhile. What comes later than that is noticed
/// when the mux tries to connect.
const TRIES: usize = 4;

/// Watches for sockets. Readable when one may have appeared.
pub(super) struct Sockets {
    inotify: OwnedFd,
    /// By what the system calls the watch of a folder.
    watches: HashMap<i32, Vec<Awaited>>,
}

/// What is waited for in a folder.
struct Awaited {
    /// That of the socket, or of a folder on the way to it.
    name: OsString,
    socket: PathBuf,
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Sockets {
    pub(super) fn new() -> io::Result<Sockets> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Sockets { inotify, watches: HashMap::new() })
    }

    /// Watches for this socket from now on. Returns whether there is a file already.
    pub(super) fn watch(&mut self, socket: &Path) -> bool {
        for _ in 0..TRIES {
            let Some((wd, next)) = self.lowest_folder(socket) else { break };
            // It may have come before the watch.
            let is_there = next.exists();
            if next == socket || !is_there {
                let name = next.file_name().unwrap_or_default().to_owned();
                let awaited = Awaited { name, socket: socket.to_owned() };
                self.watches.entry(wd).or_default().push(awaited);
                return is_there;
            }
        }
        socket.exists()
    }

    /// Watches the lowest folder on the way that is there. Returns its watch, and the path of what comes next on the way.
    /// `None` if it may not be watched: then the mux notices the server when it tries to connect, as it does if a folder
    /// further up is moved.
    fn lowest_folder<'p>(&self, socket: &'p Path) -> Option<(i32, &'p Path)> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for next in socket.ancestors() {
            let folder = next.parent()?;
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            match inotify::add_watch(&self.inotify, folder, flags) {
                Ok(wd) => return Some((wd, next)),
                Err(Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "cannot watch for sockets");
                    return None;
                }
            }
        }
        None
    }

    /// Watches for this socket no more.
    pub(super) fn forget(&mut self, socket: &Path) {
        let inotify = &self.inotify;
        self.watches.retain(|&wd, awaited| {
            awaited.retain(|awaited| awaited.socket != socket);
            if awaited.is_empty() {
                let _ = inotify::remove_watch(inotify, wd);
            }
            !awaited.is_empty()
        });
    }

    /// Returns the sockets that have appeared since this was called last.
    pub(super) fn appeared(&mut self) -> io::Result<Vec<PathBuf>> {
        // Another descriptor of the same, so that what is read may change this meanwhile.
        let inotify = self.inotify.try_clone()?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&inotify, &mut buffer);
        let mut appeared = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(appeared),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let what = event.events();
            let again = if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                mem::take(&mut self.watches).into_values().flatten().collect()
            } else if what
                .intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF)
            {
                // A folder that was moved is on the way no more.
                let _ = inotify::remove_watch(&self.inotify, event.wd());
                self.watches.remove(&event.wd()).unwrap_or_default()
            } else {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                self.take(event.wd(), name.unwrap_or_default())
            };
            for awaited in again {
                if self.watch(&awaited.socket) {
                    appeared.push(awaited.socket);
                }
            }
        }
    }

    /// Takes out what was waited for and has come.
    fn take(&mut self, wd: i32, name: &OsStr) -> Vec<Awaited> {
        let Some(all) = self.watches.get_mut(&wd) else { return Vec::new() };
        all.extract_if(.., |awaited| awaited.name == name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[track_caller]
    fn check(sockets: &mut Sockets, expected: &[&Path]) {
        assert_eq!(sockets.appeared().unwrap(), expected);
    }

    #[test]
    fn a_socket_is_told_of_each_time_that_it_appears() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["qemu.sock", "other.sock"].map(|name| dir.path().join(name));
        let mut sockets = Sockets::new().unwrap();
        assert!(!sockets.watch(&path));
        for _ in 0..3 {
            check(&mut sockets, &[]);
            let _listener = UnixListener::bind(&path).unwrap();
            let _other = UnixListener::bind(&other).unwrap();
            check(&mut sockets, &[&path]);
            fs::remove_file(&path).unwrap();
            fs::rename(&other, &path).unwrap();
            check(&mut sockets, &[&path]);
            fs::remove_file(&path).unwrap();
        }
        let _listener = UnixListener::bind(&path).unwrap();
        check(&mut sockets, &[&path]);
        let mut sockets = Sockets::new().unwrap();
        assert!(sockets.watch(&path), "it is there");
        sockets.forget(&path);
        fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        check(&mut sockets, &[]);
        assert!(sockets.watches.is_empty());
    }

    #[test]
    fn folders_on_the_way_may_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run/vm1");
        // Names that repeat on the way, and two sockets in one folder.
        let [path, other] = ["run", "qemu.sock"].map(|name| folder.join(name));
        let mut sockets = Sockets::new().unwrap();
        assert!(!sockets.watch(&path) && !sockets.watch(&other));
        for _ in 0..3 {
            fs::create_dir_all(&folder).unwrap();
            check(&mut sockets, &[]);
            let listener = UnixListener::bind(&other).unwrap();
            check(&mut sockets, &[&other]);
            drop(listener);
            fs::remove_dir_all(dir.path().join("run")).unwrap();
            check(&mut sockets, &[]);
            // All at once.
            fs::create_dir_all(&folder).unwrap();
            let _listener = UnixListener::bind(&path).unwrap();
            check(&mut sockets, &[&path]);
            fs::rename(dir.path().join("run"), dir.path().join("away")).unwrap();
            check(&mut sockets, &[]);
            let _listener = UnixListener::bind(dir.path().join("away/vm1/qemu.sock")).unwrap();
            check(&mut sockets, &[]);
            fs::remove_dir_all(dir.path().join("away")).unwrap();
        }
        let held: usize = sockets.watches.values().map(Vec::len).sum();
        assert_eq!(held, 2, "each is waited for in one place");
    }
}
