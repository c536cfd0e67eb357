// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unix sockets, with descriptors passed along.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid, chmod, chownat, fchmod, flock,
    fstat, open,
};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::sockopt::set_socket_oobinline;
#[cfg(feature = "mux")]
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    send, shutdown, socket_with,
};

use super::ancillary::{receive, receive_bytes, receive_message};
use super::{BACKLOG, Closing, Listener, Received, Transport, Travels};
use crate::io::close_foreign;
use crate::transport::{Address, Peer};

/// How long another server may take to replace a socket in the same directory.
const LOCK_TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// What is thrown away at a time.
const SCRATCH_SIZE: usize = 16 << 10;

/// What the file of a socket is to be like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketFile {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// Whether a socket can have this path, whose length Linux limits.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    SocketAddrUnix::new(path)?;
    Ok(())
}

/// Listens at `path`. A socket that nobody listens at any more is replaced.
pub(crate) fn listen(path: &Path, file: SocketFile) -> io::Result<Box<dyn Listener>> {
    let address = SocketAddrUnix::new(path)?;
    // Else a socket that another server has bound and does not listen at yet would look stale.
    let _lock = lock_directory(path);
    let socket = new_socket()?;
    if let Some(mode) = file.mode {
        // The file gets this mode when it is made, without what the umask takes away: it is never wider.
        fchmod(&socket, Mode::from_raw_mode(mode))?;
    }
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_stale(path)?;
            bind(&socket, &address)?;
        }
        bound => bound?,
    }
    let socket =
        UnixSocket { identity: identity(path)?, listener: socket.into(), path: path.into() };
    let prepared = prepare(&socket, file);
    if prepared.is_err() {
        socket.clean_up();
    }
    prepared.map(|()| Box::new(socket) as Box<dyn Listener>)
}

/// Nobody can connect before the socket is as it should be. Whoever owns the folder may have put something else in its
/// place: no other file is changed, and no symbolic link followed.
fn prepare(socket: &UnixSocket, file: SocketFile) -> io::Result<()> {
    let SocketFile { mode, owner, group } = file;
    if mode.is_some() || owner.is_some() || group.is_some() {
        let path =
            open(&socket.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let metadata = fstat(&path)?;
        // Not another name of a socket that was there before, either.
        let is_ours = FileType::from_raw_mode(metadata.st_mode) == FileType::Socket
            && metadata.st_nlink == 1
            && (metadata.st_dev, metadata.st_ino) == socket.identity;
        if !is_ours {
            let replaced = "something else has been put in place of the socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, replaced));
        }
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        if owner.is_some() || group.is_some() {
            chownat(&path, "", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = mode.filter(|mode| metadata.st_mode & 0o777 != *mode) {
            // What the umask has taken away. A descriptor of this kind has no other way.
            let path = format!("/proc/self/fd/{}", path.as_raw_fd());
            chmod(path, Mode::from_raw_mode(mode))?;
        }
    }
    Ok(rustix::net::listen(&socket.listener, BACKLOG)?)
}

pub(crate) fn listen_abstract(name: &str) -> io::Result<Box<dyn Listener>> {
    let socket = new_socket()?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Box::new(UnixListener::from(socket)))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The lock of the directory that holds `path`, kept until it is dropped. `None` where directories
/// cannot be read or locked, and where somebody keeps the lock: everybody who may read a directory can lock it, which must
/// not keep a server from starting.
fn lock_directory(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) => thread::sleep(BETWEEN_TRIES),
            Err(_) => return None,
        }
    }
    tracing::warn!("another process keeps the directory of {} locked", path.display());
    None
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket"));
    }
    match connect(&new_socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // The latter if so many clients wait there that no more may.
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for UnixSocket {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Listener::accept(&self.listener)
    }

    fn clean_up(&self) {
        // Somebody may have put another socket in its place.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn file(&self) -> Option<(u64, u64)> {
        Some(self.identity)
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }

    fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }
}

/// Serves a socket that another program has made at this path and handed over, with the file if that is known.
#[cfg(feature = "mux")]
pub(crate) fn take_over(
    listener: UnixListener,
    path: &Path,
    identity: Option<(u64, u64)>,
) -> Box<dyn Listener> {
    match identity {
        Some(identity) => Box::new(UnixSocket { listener, path: path.into(), identity }),
        None => Box::new(listener),
    }
}

/// Serves a socket that listens already, and whose file is not ours.
pub(crate) fn adopt(listener: UnixListener, number: i32) -> Box<dyn Listener> {
    Box::new(Adopted { listener, number })
}

struct Adopted {
    listener: UnixListener,
    number: i32,
}

impl AsFd for Adopted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for Adopted {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Listener::accept(&self.listener)
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }

    fn address(&self) -> Address {
        Address::Fd(self.number)
    }
}

/// It must be non-blocking. Its file, if it has one, is left to whoever has bound it.
impl Listener for UnixListener {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let (stream, _) = UnixListener::accept(self)?;
        stream.set_nonblocking(true)?;
        Ok(Box::new(stream))
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }

    fn address(&self) -> Address {
        let address = self.local_addr().ok();
        if let Some(path) = address.as_ref().and_then(SocketAddr::as_pathname) {
            return Address::Unix(path.to_owned());
        }
        let name = address.as_ref().and_then(SocketAddr::as_abstract_name).unwrap_or_default();
        Address::UnixAbstract(String::from_utf8_lossy(name).into_owned())
    }
}

/// Checks that a process of this user is at the other end.
#[cfg(feature = "mux")]
pub(crate) fn check_peer(socket: &OwnedFd, uid: u32) -> io::Result<()> {
    let actual = socket_peercred(socket)?.uid.as_raw();
    if actual == uid {
        return Ok(());
    }
    let error = format!("user {actual} listens there, and not {uid}, whose folder it is");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
}

/// With descriptors that are passed along. Does not block, whether it is non-blocking or not.
impl Transport for UnixStream {
    fn peer(&self) -> io::Result<Peer> {
        let peer = getsockopt(self, PeerCredentials)?;
        Ok(Peer::Process { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        receive(self, buffer, descriptors)
    }

    fn receive_message(
        &self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<Received> {
        receive_message(self, buffer, descriptors)
    }

    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        receive_bytes(self, buffer)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn shutdown(&self) {
        let _ = shutdown(self, Shutdown::Both);
    }

    fn travels(&self) -> Travels {
        Travels::AsSocket
    }

    fn reports_hang_up(&self) -> bool {
        true
    }

    /// Nobody can send any more after [`shutdown`](Transport::shutdown), and what has no descriptors is thrown away.
    fn closing(&self) -> Closing {
        let is_empty = || ioctl_fionread(self) == Ok(0);
        if !is_empty() {
            // Urgent bytes may bring some, too, and are not received otherwise.
            let _ = set_socket_oobinline(self, true);
            let mut scratch = [0; SCRATCH_SIZE];
            while let Ok(Received { bytes: 1.., .. }) = receive_bytes(self, &mut scratch) {}
        }
        if is_empty() { Closing::AtOnce } else { Closing::Slow }
    }

    fn discard(&self) {
        let mut scratch = [0; SCRATCH_SIZE];
        let mut came = Vec::new();
        while let Ok(Received { bytes: 1.., .. }) = receive_message(self, &mut scratch, &mut came) {
            came.drain(..).for_each(close_foreign);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    #[test]
    fn a_listener_of_the_standard_library_says_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(Listener::address(&listener), Address::Unix(path.clone()));
        // A name that nobody else has, for the directory is there.
        let name = dir.path().display().to_string();
        let listener = listen_abstract(&name).unwrap();
        assert_eq!(listener.address(), Address::UnixAbstract(name));
    }

    #[test]
    fn a_directory_that_somebody_keeps_locked_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let directory = File::open(dir.path()).unwrap();
        flock(&directory, FlockOperation::LockExclusive).unwrap();
        let path = dir.path().join("qmp.sock");
        let _listener = listen(&path, SocketFile::default()).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_was_put_in_place_of_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [path, victim] = ["qmp.sock", "victim"].map(|name| dir.path().join(name));
        fs::write(&victim, "").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let file = SocketFile { mode: Some(0o666), owner: Some(own.0), group: Some(own.1) };
        let replace: [fn(&Path, &Path); 3] = [
            |path, victim| std::os::unix::fs::symlink(victim, path).unwrap(),
            |path, victim| fs::hard_link(victim, path).unwrap(),
            |path, _| drop(UnixListener::bind(path).unwrap()),
        ];
        for replace in replace {
            let listener = UnixListener::bind(&path).unwrap();
            let identity = identity(&path).unwrap();
            let socket = UnixSocket { listener, path: path.clone(), identity };
            // So that nothing else gets its inode.
            let kept = dir.path().join("kept");
            fs::rename(&path, &kept).unwrap();
            replace(&path, &victim);
            let mode = fs::symlink_metadata(&path).unwrap().mode();
            let error = prepare(&socket, file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            socket.clean_up();
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode(), mode);
            assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
            fs::remove_file(&path).unwrap();
            fs::remove_file(&kept).unwrap();
        }
    }

    /// The server's end of a connection through which something was sent, with a descriptor or without, as urgent or not.
    fn sent(with_descriptor: bool, flags: MsgFlags) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let rights = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let ancillary = if with_descriptor { &rights[..] } else { &[] };
        let bytes = [io::IoSlice::new(b"x")];
        sendmsg::<()>(ours.as_raw_fd(), &bytes, ancillary, flags, None).unwrap();
        Transport::shutdown(&theirs);
        theirs
    }

    #[test]
    fn only_what_descriptors_are_left_in_may_take_long_to_be_closed() {
        for flags in [MsgFlags::empty(), MsgFlags::MSG_OOB] {
            assert_eq!(sent(false, flags).closing(), Closing::AtOnce, "{flags:?}");
            let socket = sent(true, flags);
            assert_eq!(socket.closing(), Closing::Slow, "{flags:?}");
            socket.discard();
            assert_eq!(socket.closing(), Closing::AtOnce, "{flags:?}");
        }
    }

    #[test]
    fn of_servers_that_start_at_once_on_a_stale_socket_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let file = SocketFile { mode: Some(0o640), ..SocketFile::default() };
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let listeners: Vec<_> = thread::scope(|scope| {
                let starts = [(); 4].map(|()| scope.spawn(|| listen(&path, file)));
                starts.into_iter().filter_map(|start| start.join().unwrap().ok()).collect()
            });
            assert_eq!(listeners.len(), 1);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
            UnixStream::connect(&path).unwrap();
            listeners[0].accept().unwrap();
            listeners[0].clean_up();
            assert!(!path.exists());
        }
    }
}
