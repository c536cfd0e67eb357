// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets whose paths match a pattern, as they appear and go. The system tells of them (inotify): nothing is looked at
//! over and over.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::path_pattern::{Found, Part, PathPattern};

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The socket is there; or there is another one in its place.
    Appeared(Found),
    /// There is no file of this name any more.
    Gone(Found),
}

/// A folder that is watched for one component of one pattern.
struct Watch {
    pattern: usize,
    level: usize,
    captures: Vec<String>,
    path: PathBuf,
    /// Held open, so that what is looked at is in the folder that was found, whatever its name leads to by now.
    folder: OwnedFd,
}

/// Looks for sockets. Readable when something may have changed.
pub(crate) struct Finder {
    patterns: Vec<PathPattern>,
    inotify: OwnedFd,
    watches: HashMap<i32, Vec<Watch>>,
    known: BTreeMap<PathBuf, Found>,
    changes: Vec<Change>,
}

impl AsFd for Finder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Finder {
    pub(crate) fn new(patterns: Vec<PathPattern>) -> io::Result<Finder> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut finder = Finder {
            patterns,
            inotify,
            watches: HashMap::new(),
            known: BTreeMap::new(),
            changes: Vec::new(),
        };
        finder.look_at_all();
        Ok(finder)
    }

    /// What has changed since this was called last; at first, all that is there.
    pub(crate) fn changes(&mut self) -> io::Result<Vec<Change>> {
        // Another descriptor of the same, so that what is read may change this meanwhile.
        let inotify = self.inotify.try_clone()?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(std::mem::take(&mut self.changes)),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            match event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                true => self.look_at_all(),
                false => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    self.event(event.wd(), event.events(), name);
                }
            }
        }
    }

    /// The socket at this path, if one is there that matches.
    pub(crate) fn known(&self, path: &Path) -> Option<Found> {
        self.known.get(path).cloned()
    }

    /// Whether a socket at this path would match.
    pub(crate) fn would_find(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    fn event(&mut self, wd: i32, what: ReadFlags, name: Option<&str>) {
        if what.contains(ReadFlags::IGNORED) {
            self.watches.remove(&wd);
            return;
        }
        let Some(name) = name else { return };
        // Taken out meanwhile: what is found below gets watches of its own.
        let Some(watches) = self.watches.remove(&wd) else { return };
        for watch in &watches {
            let path = watch.path.join(name);
            if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                self.gone(&path);
            }
            if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.look_at(watch, name, true);
            }
        }
        self.watches.entry(wd).or_default().extend(watches);
    }

    /// Looks at everything, because it is not known what has changed.
    fn look_at_all(&mut self) {
        let before = std::mem::take(&mut self.known);
        self.watches.clear();
        for pattern in 0..self.patterns.len() {
            let start = self.patterns[pattern].start.clone();
            let opened = openat(CWD, &start, folder_flags(), Mode::empty());
            match opened {
                Ok(folder) => self.enter(Watch {
                    pattern,
                    level: 0,
                    captures: Vec::new(),
                    path: start,
                    folder,
                }),
                Err(error) => {
                    tracing::warn!(%error, folder = %start.display(), "cannot look for sockets");
                }
            }
        }
        for (path, found) in before {
            if !self.known.contains_key(&path) {
                self.changes.push(Change::Gone(found));
            }
        }
    }

    /// Watches a folder, and looks at what is there.
    fn enter(&mut self, watch: Watch) {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::ONLYDIR;
        // Before it is listed, so that nothing is missed; and by the descriptor, so that it is this folder.
        let by_descriptor = format!("/proc/self/fd/{}", watch.folder.as_raw_fd());
        let added = inotify::add_watch(&self.inotify, &by_descriptor, flags);
        if let Err(error) = &added {
            tracing::warn!(%error, folder = %watch.path.display(), "cannot watch for sockets");
        }
        match &self.patterns[watch.pattern].parts[watch.level] {
            Part::Fixed(name) => {
                let name = name.clone();
                self.look_at(&watch, &name, false);
            }
            Part::Any { .. } => {
                for entry in Dir::read_from(&watch.folder).into_iter().flatten().flatten() {
                    if let Ok(name) = entry.file_name().to_str() {
                        self.look_at(&watch, name, false);
                    }
                }
            }
        }
        if let Ok(wd) = added {
            self.watches.entry(wd).or_default().push(watch);
        }
    }

    /// Looks at one name in a folder. `is_new` says that it is another file than before, if there was one.
    fn look_at(&mut self, watch: &Watch, name: &str, is_new: bool) {
        let pattern = &self.patterns[watch.pattern];
        let Some(capture) = pattern.parts[watch.level].captures(name) else { return };
        let captures: Vec<_> =
            watch.captures.iter().cloned().chain(capture.map(str::to_owned)).collect();
        let path = watch.path.join(name);
        let name = OsStr::from_bytes(name.as_bytes());
        if watch.level + 1 < pattern.parts.len() {
            let mut flags = folder_flags();
            flags.set(OFlags::NOFOLLOW, !pattern.is_trusted(watch.level));
            if let Ok(folder) = openat(&watch.folder, name, flags, Mode::empty()) {
                let (pattern, level) = (watch.pattern, watch.level + 1);
                self.enter(Watch { pattern, level, captures, path, folder });
            }
            return;
        }
        let file = statat(&watch.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_socket =
            file.is_ok_and(|file| FileType::from_raw_mode(file.st_mode) == FileType::Socket);
        let Ok(folder) = fstat(&watch.folder) else { return };
        if !is_socket || (self.known.contains_key(&path) && !is_new) {
            return;
        }
        let found =
            Found { pattern: watch.pattern, captures, path: path.clone(), owner: folder.st_uid };
        self.known.insert(path, found.clone());
        self.changes.push(Change::Appeared(found));
    }

    /// A file or a folder has gone, and with it all that was in it.
    fn gone(&mut self, path: &Path) {
        let below: Vec<PathBuf> = self
            .known
            .range(path.to_owned()..)
            .map(|(below, _)| below.clone())
            .take_while(|below| below.starts_with(path))
            .collect();
        for path in below {
            self.changes.extend(self.known.remove(&path).map(Change::Gone));
        }
        // If it was moved, what happens there is not of interest any more.
        let inotify = &self.inotify;
        self.watches.retain(|&wd, watches| {
            watches.retain(|watch| !watch.path.starts_with(path));
            if watches.is_empty() {
                let _ = inotify::remove_watch(inotify, wd);
            }
            !watches.is_empty()
        });
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn finder(folder: &Path, pattern: &str) -> Finder {
        let pattern = PathPattern::parse(&folder.join(pattern)).unwrap().unwrap();
        Finder::new(vec![pattern]).unwrap()
    }

    /// What has changed: the names that have come, and those that have gone.
    #[track_caller]
    fn check(finder: &mut Finder, expected: &[&str]) {
        let changes = finder.changes().unwrap();
        let told: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Appeared(found) => format!("+{}", found.captures.join(",")),
                Change::Gone(found) => format!("-{}", found.captures.join(",")),
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn sockets_are_found_when_they_appear_and_missed_when_they_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mut finder = finder(folder, "vms/vm-*/qemu.sock");
        check(&mut finder, &[]);
        // Folders that were not there at first.
        fs::create_dir_all(folder.join("vms/vm-a")).unwrap();
        check(&mut finder, &[]);
        let first = UnixListener::bind(folder.join("vms/vm-a/qemu.sock")).unwrap();
        let _other = UnixListener::bind(folder.join("vms/vm-a/other.sock")).unwrap();
        check(&mut finder, &["+a"]);
        fs::create_dir(folder.join("vms/vm-b")).unwrap();
        let _second = UnixListener::bind(folder.join("vms/vm-b/qemu.sock")).unwrap();
        fs::create_dir(folder.join("vms/b")).unwrap();
        let _third = UnixListener::bind(folder.join("vms/b/qemu.sock")).unwrap();
        check(&mut finder, &["+b"]);
        drop(first);
        fs::remove_file(folder.join("vms/vm-a/qemu.sock")).unwrap();
        check(&mut finder, &["-a"]);
        let _again = UnixListener::bind(folder.join("vms/vm-a/qemu.sock")).unwrap();
        check(&mut finder, &["+a"]);
        fs::rename(folder.join("vms/vm-b"), folder.join("vms/vm-c")).unwrap();
        check(&mut finder, &["-b", "+c"]);
        fs::remove_file(folder.join("vms/vm-c/qemu.sock")).unwrap();
        fs::remove_dir(folder.join("vms/vm-c")).unwrap();
        check(&mut finder, &["-c"]);
        fs::create_dir(folder.join("vms/vm-c")).unwrap();
        let _last = UnixListener::bind(folder.join("vms/vm-c/qemu.sock")).unwrap();
        check(&mut finder, &["+c"]);
        // What has gone while nobody was told.
        fs::remove_file(folder.join("vms/vm-a/qemu.sock")).unwrap();
        finder.look_at_all();
        assert_eq!(finder.known.len(), 1);
        check(&mut finder, &["+c", "-a"]);
    }

    #[test]
    fn no_link_is_followed_behind_a_star() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        fs::create_dir_all(folder.join("real/vm-a")).unwrap();
        let _listener = UnixListener::bind(folder.join("real/vm-a/qemu.sock")).unwrap();
        std::os::unix::fs::symlink("real", folder.join("vms")).unwrap();
        std::os::unix::fs::symlink("vm-a", folder.join("real/vm-b")).unwrap();
        fs::create_dir(folder.join("real/vm-c")).unwrap();
        std::os::unix::fs::symlink("../vm-a/qemu.sock", folder.join("real/vm-c/qemu.sock"))
            .unwrap();
        fs::create_dir(folder.join("real/vm-d")).unwrap();
        fs::write(folder.join("real/vm-d/qemu.sock"), "").unwrap();
        check(&mut finder(folder, "vms/vm-*/qemu.sock"), &["+a"]);
    }
}
