//! A stream that closes lingeringly, so that the peer gets the last response.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{self, Instant, Sleep};

use super::phase::{LINGER, Progress};

/// How long a closed connection is still read while no bytes arrive.
const LINGER_IDLE: Duration = Duration::from_secs(1);

/// How many bytes of a closed connection are still read.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A stream that closes lingeringly and updates its [`Progress`].
///
/// A request may be answered before it is read completely. TCP resets a connection that is closed
/// with unread bytes, and a peer that is still sending loses the response. So the sending half
/// closes first. Then the stream reads and discards up to a limit of time and bytes until the peer
/// closes too (RFC 9112 section 9.6).
#[derive(Debug)]
pub(super) struct LingeringStream<S> {
    stream: S,
    progress: Arc<Progress>,
    linger: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    timer: Pin<Box<Sleep>>,
    end: Instant,
    bytes_left: usize,
}

impl<S> LingeringStream<S> {
    pub(super) const fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            progress,
            linger: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress.on_write(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.progress.peer_may_send() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::new);
        linger.poll_discard(&mut this.stream, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress.on_write(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LingeringStream<S> {
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

impl Linger {
    fn new() -> Self {
        Self {
            timer: Box::pin(time::sleep(LINGER_IDLE)),
            end: Instant::now() + LINGER,
            bytes_left: LINGER_BYTES,
        }
    }

    fn poll_discard(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8192];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer)? {
                Poll::Pending => break,
                Poll::Ready(()) => {
                    let read = buffer.filled().len();
                    if read == 0 || read >= self.bytes_left {
                        return Poll::Ready(Ok(()));
                    }
                    self.bytes_left -= read;
                    let next = self.end.min(Instant::now() + LINGER_IDLE);
                    self.timer.as_mut().reset(next);
                }
            }
        }
        self.timer.as_mut().poll(cx).map(Ok)
    }
}
