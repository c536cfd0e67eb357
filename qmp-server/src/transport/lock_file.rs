// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file beside a Unix socket, locked for as long as the socket is bound and does not listen. Such a socket refuses clients as
//! one does that is left over from a server that was killed: the lock tells the two apart.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;

/// How often a file is opened again that its last owner has removed meanwhile.
const TRIES: usize = 16;

pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Locks the file of this socket, which is made if there is none.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if another server has it.
    pub(super) fn take(socket: &Path) -> io::Result<LockFile> {
        let mut path = OsString::from(socket);
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..TRIES {
            // Nobody else's file is followed, waited for, or written to. Who cannot open it cannot lock it.
            let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = match open(&path, flags | OFlags::RDONLY, mode) {
                Ok(file) => File::from(file),
                Err(error) => return Err(blame(&path, error.into())),
            };
            if !file.metadata()?.is_file() {
                let no_file = io::Error::new(io::ErrorKind::AlreadyExists, "not a lock file");
                return Err(blame(&path, no_file));
            }
            let lock = LockFile { file, path: path.clone() };
            match flock(&lock.file, FlockOperation::NonBlockingLockExclusive) {
                // What its last owner has removed is no lock any more.
                Ok(()) if lock.is_in_place() => return Ok(lock),
                Err(Errno::WOULDBLOCK) if lock.is_in_place() => break,
                Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(blame(&path, error.into())),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"))
    }

    /// Removes the file. The socket's path must not be used any more.
    pub(super) fn remove(&self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn is_in_place(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&self.path).map(identity).ok();
        there.is_some() && there == self.file.metadata().map(identity).ok()
    }
}

fn blame(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn one_at_a_time_has_it_and_the_next_one_when_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp.sock");
        let lock = LockFile::take(&socket).unwrap();
        let refused = LockFile::take(&socket).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // It is held open, and is no lock of this path any more.
        lock.remove();
        let next = LockFile::take(&socket).unwrap();
        lock.remove();
        assert!(LockFile::take(&socket).is_err(), "that of the next one stays");
        drop(next);
        // So does one that was killed leave it.
        LockFile::take(&socket).unwrap();
    }

    #[test]
    fn what_is_no_file_of_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp.sock");
        let path = dir.path().join("qmp.sock.lock");
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(LockFile::take(&socket).is_err());
        assert!(!victim.exists());
        fs::remove_file(&path).unwrap();
        // Opening it does not wait for a writer.
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let refused = LockFile::take(&socket).err().unwrap();
        assert_eq!(refused.to_string(), format!("{}: not a lock file", path.display()));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(LockFile::take(&socket).is_err());
    }
}
