//! A TCP proxy that cuts and slows connections.
//!
//! The program's tests use this file too.

#![allow(dead_code, reason = "the tests of two crates share this file")]

use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A TCP proxy on a port of 127.0.0.1.
pub(crate) struct TcpProxy {
    port: u16,
    faults: Arc<Faults>,
}

struct Faults {
    target: u16,
    is_cut: AtomicBool,
    /// How many chunks from clients are still forwarded; `u32::MAX` for all.
    chunks: AtomicU32,
    /// Whether the chunk after the last is forwarded before its connection is cut.
    forwards_last: AtomicBool,
    /// The delay of each chunk in milliseconds.
    delay: AtomicU64,
    /// How many bytes a second each connection forwards, in each direction; 0 for any number.
    rate: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl TcpProxy {
    pub(crate) fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults {
            target,
            is_cut: AtomicBool::new(false),
            chunks: AtomicU32::new(u32::MAX),
            forwards_last: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let shared = Arc::clone(&faults);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.forward(client);
            }
        });
        Self { port, faults }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and each new one.
    pub(crate) fn cut(&self) {
        self.faults.is_cut.store(true, Ordering::SeqCst);
        self.faults.close_all();
    }

    /// Forwards this many more chunks of clients, then closes the connection of each further chunk. The
    /// target gets that chunk if the number is odd.
    pub(crate) fn cut_after(&self, chunks: u32) {
        let is_odd = !chunks.is_multiple_of(2);
        self.faults.forwards_last.store(is_odd, Ordering::SeqCst);
        self.faults.chunks.store(chunks, Ordering::SeqCst);
    }

    /// Delays each chunk, in both directions.
    pub(crate) fn slow(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap();
        self.faults.delay.store(delay, Ordering::SeqCst);
    }

    /// Limits how many bytes a second each connection forwards, in each direction.
    pub(crate) fn throttle(&self, rate: u64) {
        self.faults.rate.store(rate, Ordering::SeqCst);
    }

    /// Ends all faults.
    pub(crate) fn repair(&self) {
        self.faults.is_cut.store(false, Ordering::SeqCst);
        self.faults.chunks.store(u32::MAX, Ordering::SeqCst);
        self.faults.delay.store(0, Ordering::SeqCst);
        self.faults.rate.store(0, Ordering::SeqCst);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Faults {
    fn forward(self: &Arc<Self>, client: TcpStream) {
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            self.connections
                .lock()
                .unwrap()
                .push(stream.try_clone().unwrap());
        }
        let (from_client, from_server) = (Arc::clone(self), Arc::clone(self));
        let (client_reader, server_reader) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || from_client.copy(client_reader, server, true));
        thread::spawn(move || from_server.copy(server_reader, client, false));
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_client: bool) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let delay = self.delay.load(Ordering::SeqCst);
            if delay > 0 {
                thread::sleep(Duration::from_millis(delay));
            }
            let rate = self.rate.load(Ordering::SeqCst);
            let milliseconds = (u64::try_from(length).unwrap() * 1000).checked_div(rate);
            thread::sleep(Duration::from_millis(milliseconds.unwrap_or_default()));
            let may_forward = !is_client || self.take_chunk();
            if !may_forward && !self.forwards_last.load(Ordering::SeqCst) {
                break;
            }
            if to.write_all(&buffer[..length]).is_err() || !may_forward {
                break;
            }
        }
        // The client gets no answer to its last chunk.
        if is_client {
            let _ = from.shutdown(Shutdown::Both);
        }
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Returns `false` if no more chunks are forwarded.
    fn take_chunk(&self) -> bool {
        let take = |left| match left {
            u32::MAX => Some(left),
            _ => u32::checked_sub(left, 1),
        };
        let taken = (self.chunks).fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken.is_ok()
    }

    fn close_all(&self) {
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
