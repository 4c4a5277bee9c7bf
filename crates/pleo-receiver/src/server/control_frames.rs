//! Limits the control frames of an HTTP/2 connection.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::phase::Progress;

/// How many control frames a client may send before its first request.
const INITIAL: u32 = 1000;

/// How many more it may send after each request, up to [`INITIAL`].
const PER_REQUEST: u32 = 32;

/// The connection preface (RFC 9113 section 3.4).
const PREFACE_LEN: usize = 24;

/// A frame's length, type, flags and stream (RFC 9113 section 4.1).
const HEADER_LEN: usize = 9;

/// The frame types that requests consist of (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Counts the frames that arrive. Each costs the server time, and most need no request: PING,
/// SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE and unknown types.
#[derive(Debug)]
struct Frames {
    /// How many bytes to skip: the rest of a payload, or of the connection preface.
    skipped: usize,
    header: Vec<u8>,
    /// How many control frames may still arrive.
    allowed: u32,
}

impl Frames {
    const fn new() -> Self {
        Self {
            skipped: PREFACE_LEN,
            header: Vec::new(),
            allowed: INITIAL,
        }
    }

    /// Reads the bytes that arrived. Returns `false` if they exceed the limit.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = &bytes[skipped..];
            let (header, rest) = bytes.split_at(bytes.len().min(HEADER_LEN - self.header.len()));
            self.header.extend_from_slice(header);
            bytes = rest;
            let [a, b, c, kind, _, _, _, _, _] = self.header[..] else {
                return true;
            };
            self.header.clear();
            self.skipped = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            match (kind, self.allowed.checked_sub(1)) {
                (DATA, _) => {}
                (HEADERS, _) => self.allowed = INITIAL.min(self.allowed + PER_REQUEST),
                (_, Some(allowed)) => self.allowed = allowed,
                (_, None) => return false,
            }
        }
    }
}

/// A stream that reports too many control frames to its [`Progress`].
#[derive(Debug)]
pub(super) struct FrameLimit<S> {
    stream: S,
    frames: Frames,
    progress: Arc<Progress>,
}

impl<S> FrameLimit<S> {
    pub(super) const fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            progress,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameLimit<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.frames.read(&buffer.filled()[before..]) {
            Poll::Ready(Ok(()))
        } else {
            // The connection's task closes it.
            self.progress.on_flood();
            Poll::Pending
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameLimit<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, payload: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, payload, kind, 0, 0, 0, 0, 0];
        frame.extend(vec![9; payload.into()]);
        frame
    }

    fn frames(kind: u8, count: u32) -> Vec<u8> {
        (0..count).flat_map(|_| frame(kind, 8)).collect()
    }

    fn started() -> Frames {
        let mut frames = Frames::new();
        assert!(frames.read(&[9; PREFACE_LEN]));
        frames
    }

    #[test]
    fn allows_control_frames_up_to_limit() {
        let mut counted = started();
        assert!(counted.read(&frames(PING, INITIAL)));
        assert!(!counted.read(&frame(PING, 8)));
    }

    #[test]
    fn allows_more_after_each_request() {
        let mut counted = started();
        assert!(counted.read(&frames(PING, INITIAL)));
        assert!(counted.read(&frames(HEADERS, 2)));
        assert!(counted.read(&frames(DATA, 5000)));
        assert!(counted.read(&frames(PING, 2 * PER_REQUEST)));
        assert!(!counted.read(&frame(PING, 8)));
        let mut idle = started();
        assert!(idle.read(&frames(HEADERS, 5000)));
        assert!(!idle.read(&frames(PING, INITIAL + 1)));
    }

    #[test]
    fn counts_alike_however_bytes_are_split() {
        let bytes = [frames(HEADERS, 1), frames(PING, INITIAL)].concat();
        for size in 1..40 {
            let mut counted = started();
            assert!(
                bytes.chunks(size).all(|piece| counted.read(piece)),
                "{size}"
            );
            assert!(!counted.read(&frame(PING, 255)), "{size}");
        }
    }
}
