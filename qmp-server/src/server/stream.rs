// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that come over the streams of an asynchronous runtime.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;

use qmp_dispatch::proto::Layout;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};

use super::Control;
use crate::transport::{Peer, Received, Transport};

impl Control {
    /// Serves one more client, over anything that can be read and written in Tokio: a stream of a TLS
    /// or SSH library, a WebSocket, the other half of a pipe in memory. Ends with the connection;
    /// dropping the future ends the connection.
    ///
    /// The task only carries bytes, over a pair of sockets: commands are executed where the server
    /// executes them, on its own threads, so no handler ever holds up the runtime. A handler that has
    /// to await something is [async](qmp_dispatch::Registry::async_command), on a
    /// [`TokioExecutor`](crate::TokioExecutor).
    /// Back-pressure goes all the way: what the server does not read is not read from the stream.
    ///
    /// Whoever accepts the stream says who the `peer` is; [`Access`](crate::Access) is asked whether
    /// it may.
    ///
    /// Needs the feature `tokio`, and must be polled in a Tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the server has ended; otherwise what the
    /// stream says when it breaks, or the system when it refuses descriptors.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O enabled.
    ///
    /// ```
    /// use qmp_dispatch::proto::Layout;
    /// use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::{Peer, Server, system_time, version};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let server = Server::new(Dispatcher::new(Registry::new(), version(), system_time));
    /// let server = server.stay().spawn()?;
    /// let control = server.control();
    ///
    /// let (mut client, stream) = tokio::io::duplex(1024);
    /// let served = tokio::spawn(async move {
    ///     control.serve_stream(stream, Peer::Address("example".into()), Layout::Compact).await
    /// });
    /// let mut greeting = [0; 7];
    /// client.read_exact(&mut greeting).await?;
    /// assert_eq!(&greeting, br#"{"QMP":"#);
    ///
    /// drop(client);
    /// served.await??;
    /// server.control().shutdown();
    /// server.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn serve_stream<S>(&self, stream: S, peer: Peer, layout: Layout) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let mut far = tokio::net::UnixStream::from_std(far)?;
        self.serve(Box::new(Carried { socket: near, peer }), layout)?;

        let stream = pin!(stream);
        let (mut from_client, mut to_client) = split(stream);
        let (mut from_server, mut to_server) = far.split();
        let mut requests = pin!(async {
            let copied = copy(&mut from_client, &mut to_server).await;
            to_server.shutdown().await?;
            copied
        });
        let mut answers = pin!(async {
            copy(&mut from_server, &mut to_client).await?;
            to_client.shutdown().await
        });
        tokio::select! {
            // The server has ended the connection, whatever the client still has to say.
            done = &mut answers => done,
            done = &mut requests => {
                // A client that sends no more still gets its answers.
                let answered = answers.await;
                done.and(answered)
            }
        }
    }
}

/// The server's end of the pair.
struct Carried {
    socket: UnixStream,
    peer: Peer,
}

impl AsFd for Carried {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Transport for Carried {
    fn reports_hang_up(&self) -> bool {
        true
    }

    fn peer(&self) -> io::Result<Peer> {
        Ok(self.peer.clone())
    }

    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        self.socket.receive(buffer, descriptors)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Transport::send(&self.socket, bytes)
    }

    fn shutdown(&self) {
        Transport::shutdown(&self.socket);
    }
}
