//! A stream that notices blocked writes, and closes so that the peer gets the last response.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{self, Sleep};

use super::phase::Progress;

/// How long a closed connection is still read.
const LINGER: Duration = Duration::from_secs(5);

/// A stream that reports to its [`Progress`], and closes lingeringly.
///
/// A request may be answered before it is read completely. TCP resets a connection that is closed
/// with unread bytes, and a peer that is still sending loses the response. So the sending half
/// closes first. Then the stream reads and discards until the peer closes too, for [`LINGER`] at most
/// (RFC 9112 section 9.6).
#[derive(Debug)]
pub(super) struct LingeringStream {
    stream: TcpStream,
    progress: Arc<Progress>,
    write_timeout: Duration,
    /// Runs while the peer takes no bytes.
    blocked: Option<Pin<Box<Sleep>>>,
    /// Runs once the sending half is closed.
    linger: Option<Pin<Box<Sleep>>>,
}

impl LingeringStream {
    pub(super) const fn new(
        stream: TcpStream,
        progress: Arc<Progress>,
        write_timeout: Duration,
    ) -> Self {
        Self {
            stream,
            progress,
            write_timeout,
            blocked: None,
            linger: None,
        }
    }
}

impl AsyncRead for LingeringStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.progress.on_read();
        }
        read
    }
}

impl AsyncWrite for LingeringStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = (self.blocked).get_or_insert_with(|| Box::pin(time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        self.progress.on_write_timeout();
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.progress.peer_may_send() {
                return Poll::Ready(Ok(()));
            }
        }
        let timer = (self.linger).get_or_insert_with(|| Box::pin(time::sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
