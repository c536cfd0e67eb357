// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unix sockets, with descriptors passed along.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
#[cfg(feature = "mux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmod, chownat, fchmod, fstat, open};
use rustix::io::{Errno, ioctl_fionread};
#[cfg(feature = "mux")]
use rustix::net::sockopt::socket_peercred;
use rustix::net::sockopt::{set_socket_oobinline, socket_acceptconn};
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    send, shutdown, socket_with,
};

use super::ancillary::{receive, receive_bytes, receive_message};
use super::lock_file::LockFile;
use super::{BACKLOG, Closing, Listener, Received, Transport, Travels};
use crate::io::{STRANGERS, close_aside, close_foreign};
use crate::transport::{Address, Peer};

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

/// Binds a socket to `path`, which does not listen yet. One that nobody listens at any more is replaced.
pub(crate) fn bind_path(path: &Path, file: SocketFile) -> io::Result<Box<dyn Listener>> {
    Ok(Box::new(UnixSocket::bind(path, file)?))
}

/// Binds a socket, whose file is as it should be when this returns.
fn bind_file(path: &Path, file: SocketFile) -> io::Result<(UnixListener, FileIdentity)> {
    let address = SocketAddrUnix::new(path)?;
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
    let identity = identity(path)?;
    let prepared = prepare(path, identity, file);
    if prepared.is_err() {
        remove_if(path, identity);
    }
    prepared.map(|()| (socket.into(), identity))
}

/// Nobody can connect before the socket is as it should be. Whoever owns the folder may have put something else in its
/// place: no other file is changed, and no symbolic link followed.
fn prepare(path: &Path, identity: FileIdentity, file: SocketFile) -> io::Result<()> {
    let SocketFile { mode, owner, group } = file;
    if mode.is_some() || owner.is_some() || group.is_some() {
        let path = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let metadata = fstat(&path)?;
        // Not another name of a socket that was there before, either.
        let is_ours = FileType::from_raw_mode(metadata.st_mode) == FileType::Socket
            && metadata.st_nlink == 1
            && (metadata.st_dev, metadata.st_ino) == identity;
        if !is_ours {
            return Err(replaced());
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
    Ok(())
}

fn replaced() -> io::Error {
    let replaced = "something else has been put in place of the socket";
    io::Error::new(io::ErrorKind::AlreadyExists, replaced)
}

pub(crate) fn bind_abstract(name: &str) -> io::Result<Box<dyn Listener>> {
    let listener = new_socket()?.into();
    let mut socket = AbstractSocket { listener, name: name.to_owned(), is_bound: false };
    socket.bind()?;
    Ok(Box::new(socket))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Removes a socket that nobody listens at. Who calls this has the lock of its path, so no server of ours has it.
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
type FileIdentity = (u64, u64);

fn identity(path: &Path) -> io::Result<FileIdentity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a file unless it is another one: somebody may have put something else in its place.
fn remove_if(path: &Path, ours: FileIdentity) {
    if identity(path).is_ok_and(|identity| identity == ours) {
        let _ = fs::remove_file(path);
    }
}

struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: FileIdentity,
    file: SocketFile,
    /// Held exactly while the socket does not listen: other servers would take it for one that was left over.
    lock: Option<LockFile>,
}

impl UnixSocket {
    fn bind(path: &Path, file: SocketFile) -> io::Result<UnixSocket> {
        check_path(path)?;
        let lock = LockFile::take(path)?;
        match bind_file(path, file) {
            Ok((listener, identity)) => {
                Ok(UnixSocket { listener, path: path.into(), identity, file, lock: Some(lock) })
            }
            Err(error) => {
                lock.remove();
                Err(error)
            }
        }
    }

    fn unlock(&self) {
        self.lock.iter().for_each(LockFile::remove);
    }

    /// Puts another socket in the place of this one.
    fn replace(&mut self, new: UnixSocket) -> io::Result<UnixListener> {
        let is_ours = match identity(&self.path) {
            Ok(identity) => identity == self.identity,
            // Nobody finds this one any more.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let renamed = match is_ours {
            true => fs::rename(&new.path, &self.path),
            false => Err(replaced()),
        };
        if let Err(error) = renamed {
            new.clean_up();
            return Err(error);
        }
        new.unlock();
        self.identity = new.identity;
        Ok(std::mem::replace(&mut self.listener, new.listener))
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for UnixSocket {
    fn open(&mut self) -> io::Result<()> {
        rustix::net::listen(&self.listener, BACKLOG)?;
        self.unlock();
        self.lock = None;
        Ok(())
    }

    /// A socket that has listened can only be closed, so another one takes its place.
    fn shut(&mut self) -> io::Result<()> {
        if !socket_acceptconn(&self.listener)? {
            return Ok(());
        }
        let lock = LockFile::take(&self.path)?;
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        let new = UnixSocket::bind(&self.path.with_file_name(name), self.file);
        let old = new.and_then(|new| self.replace(new)).inspect_err(|_| lock.remove())?;
        self.lock = Some(lock);
        // With what clients have sent who wait there.
        close_aside(STRANGERS, move || drop(old));
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Listener::accept(&self.listener)
    }

    fn clean_up(&self) {
        remove_if(&self.path, self.identity);
        self.unlock();
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

/// A socket whose name nobody else gets, but for the moment in which another one takes its place.
struct AbstractSocket {
    listener: UnixListener,
    name: String,
    /// It can listen.
    is_bound: bool,
}

impl AbstractSocket {
    fn bind(&mut self) -> io::Result<()> {
        bind(&self.listener, &SocketAddrUnix::new_abstract_name(self.name.as_bytes())?)?;
        self.is_bound = true;
        Ok(())
    }
}

impl AsFd for AbstractSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for AbstractSocket {
    fn open(&mut self) -> io::Result<()> {
        if !self.is_bound {
            // With those who still wait there, the name would be free only when what they have sent is closed.
            let left: Vec<_> = self.listener.incoming().map_while(Result::ok).collect();
            if !left.is_empty() {
                close_aside(STRANGERS, move || drop(left));
            }
            self.listener = new_socket()?.into();
            self.bind()?;
        }
        Ok(rustix::net::listen(&self.listener, BACKLOG)?)
    }

    /// It keeps its name. Clients are refused from now on, and those who wait there can be accepted.
    fn shut(&mut self) -> io::Result<()> {
        if socket_acceptconn(&self.listener)? {
            shutdown(&self.listener, Shutdown::Read)?;
            self.is_bound = false;
        }
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Listener::accept(&self.listener)
    }

    fn closing(&self) -> Closing {
        Closing::Slow
    }

    fn address(&self) -> Address {
        Address::UnixAbstract(self.name.clone())
    }
}

/// Goes on with a socket that another program has made at this path, and with the file if that is known.
#[cfg(feature = "mux")]
pub(crate) fn take_over(
    listener: UnixListener,
    path: &Path,
    identity: Option<FileIdentity>,
    file: SocketFile,
) -> Box<dyn Listener> {
    let Some(identity) = identity else { return Box::new(listener) };
    // It may be held still, by the other program.
    let lock = match socket_acceptconn(&listener) {
        Ok(false) => LockFile::take(path).ok(),
        _ => None,
    };
    Box::new(UnixSocket { listener, path: path.into(), identity, file, lock })
}

/// Goes on with a socket that another program has given this name.
#[cfg(feature = "mux")]
pub(crate) fn take_over_abstract(listener: UnixListener, name: &str) -> Box<dyn Listener> {
    let mut shut = [PollFd::new(&listener, PollFlags::RDHUP)];
    let is_shut = poll(&mut shut, Some(&Timespec::default())).is_ok_and(|shut| shut > 0);
    Box::new(AbstractSocket { listener, name: name.to_owned(), is_bound: !is_shut })
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
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

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
        let listener = bind_abstract(&name).unwrap();
        assert_eq!(listener.address(), Address::UnixAbstract(name));
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
            let mut socket =
                UnixSocket { listener, path: path.clone(), identity, file, lock: None };
            // So that nothing else gets its inode.
            let kept = dir.path().join("kept");
            fs::rename(&path, &kept).unwrap();
            replace(&path, &victim);
            let mode = fs::symlink_metadata(&path).unwrap().mode();
            let error = prepare(&path, identity, file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let error = socket.shut().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            socket.clean_up();
            assert_eq!(fs::symlink_metadata(&path).unwrap().mode(), mode);
            assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
            fs::remove_file(&path).unwrap();
            fs::remove_file(&kept).unwrap();
        }
    }

    #[track_caller]
    fn assert_refused(connected: io::Result<UnixStream>) {
        assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_socket_that_is_shut_refuses_clients_and_keeps_its_path_and_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let file = SocketFile { mode: Some(0o640), ..SocketFile::default() };
        let mut listener = bind_path(&path, file).unwrap();
        for _ in 0..3 {
            // Again, though it is shut.
            listener.shut().unwrap();
            assert_refused(UnixStream::connect(&path));
            let other = bind_path(&path, file).err().unwrap();
            assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
            listener.open().unwrap();
            let mut early = UnixStream::connect(&path).unwrap();
            listener.shut().unwrap();
            assert_refused(UnixStream::connect(&path));
            assert!(early.read(&mut [0]).is_err(), "who has waited there is disconnected");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the socket and its lock");
        listener.open().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        listener.clean_up();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_that_was_left_over_while_it_was_replaced_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let [path, beside] = ["qmp.sock", ".qmp.sock"].map(|name| dir.path().join(name));
        let mut listener = bind_path(&path, SocketFile::default()).unwrap();
        listener.open().unwrap();
        drop(UnixListener::bind(&beside).unwrap());
        listener.shut().unwrap();
        assert_refused(UnixStream::connect(&path));
        listener.open().unwrap();
        // One that is another server's is.
        let mut other = bind_path(&beside, SocketFile::default()).unwrap();
        assert_eq!(listener.shut().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        other.open().unwrap();
        UnixStream::connect(&beside).unwrap();
    }

    #[test]
    fn an_abstract_socket_that_is_shut_refuses_clients_and_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        // A name that nobody else has, for the directory is there.
        let name = dir.path().display().to_string();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let connect = || UnixStream::connect_addr(&address);
        let mut listener = bind_abstract(&name).unwrap();
        for _ in 0..3 {
            listener.shut().unwrap();
            assert_refused(connect());
            listener.open().unwrap();
            let _early = connect().unwrap();
            listener.shut().unwrap();
            assert_refused(connect());
            let other = bind_abstract(&name).err().unwrap();
            assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
            listener.accept().unwrap();
            let nobody = listener.accept().err().unwrap();
            assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
        }
        listener.open().unwrap();
        let mut waits = connect().unwrap();
        listener.shut().unwrap();
        listener.open().unwrap();
        assert!(!matches!(waits.read(&mut [0]), Ok(1..)));
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
            let mut listeners: Vec<_> = thread::scope(|scope| {
                let starts = [(); 4].map(|()| scope.spawn(|| bind_path(&path, file)));
                starts.into_iter().filter_map(|start| start.join().unwrap().ok()).collect()
            });
            assert_eq!(listeners.len(), 1);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
            UnixStream::connect(&path).unwrap_err();
            listeners[0].open().unwrap();
            UnixStream::connect(&path).unwrap();
            listeners[0].accept().unwrap();
            listeners[0].clean_up();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
