//! The bytes of a connection: what they tell of its pace, and a close that takes nothing back.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{self, Instant, Sleep};

use super::connection_state::{ConnectionState, LINGER};

/// How long it is still read while nothing comes.
const SILENCE: Duration = Duration::from_secs(1);

/// How many bytes of it are still read.
const AMOUNT: usize = 16 * 1024 * 1024;

/// A connection that closes lingeringly, and keeps its pace up to date.
///
/// A request may be answered before it is read whole. TCP resets a connection that is closed with
/// bytes unread, and the reset overtakes the answer: a peer that still writes never sees it. So only
/// the sending half is closed at first, and what still comes is read and thrown away until the peer
/// closes too, for a bounded time and amount (RFC 9112 section 9.6).
#[derive(Debug)]
pub(super) struct LingeringStream<S> {
    stream: S,
    pace: Arc<ConnectionState>,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    timer: Pin<Box<Sleep>>,
    end: Instant,
    left: usize,
}

impl<S> LingeringStream<S> {
    pub(super) const fn new(stream: S, pace: Arc<ConnectionState>) -> Self {
        Self {
            stream,
            pace,
            closing: None,
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
        self.pace.wrote(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.pace.peer_may_write() {
                return Poll::Ready(Ok(()));
            }
        }
        let closing = this.closing.get_or_insert_with(Closing::new);
        closing.poll_drain(&mut this.stream, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.pace.wrote(written.is_ready());
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
            self.pace.read();
        }
        read
    }
}

impl Closing {
    fn new() -> Self {
        Self {
            timer: Box::pin(time::sleep(SILENCE)),
            end: Instant::now() + LINGER,
            left: AMOUNT,
        }
    }

    fn poll_drain(
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
                    if read == 0 || read >= self.left {
                        return Poll::Ready(Ok(()));
                    }
                    self.left -= read;
                    let next = self.end.min(Instant::now() + SILENCE);
                    self.timer.as_mut().reset(next);
                }
            }
        }
        self.timer.as_mut().poll(cx).map(Ok)
    }
}
