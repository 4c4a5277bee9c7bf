//! Listening sockets that systemd opened (`systemd.socket(5)`). They stay open while the server
//! restarts: connections wait in them, and none is refused.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use crate::failure::Failure;
use crate::listen::bind;

/// The sockets by their address.
#[derive(Debug, Default)]
pub(crate) struct Sockets(BTreeMap<SocketAddr, TcpListener>);

impl Sockets {
    /// Takes the sockets that systemd opened.
    ///
    /// # Errors
    /// One is no listening TCP socket.
    pub(crate) fn take() -> Result<Self, Failure> {
        let mut passed = ListenFd::from_env();
        let mut sockets = BTreeMap::new();
        for index in 0..passed.len() {
            let failed = |error| {
                let number = index + 1;
                Failure::Usage(format!(
                    "socket {number} of the systemd unit cannot be used: {error}; use \
                     `ListenStream=` with an address and a port"
                ))
            };
            let taken = passed.take_tcp_listener(index).map_err(failed)?;
            let Some(socket) = taken else { continue };
            socket.set_nonblocking(true).map_err(failed)?;
            sockets.insert(socket.local_addr().map_err(failed)?, socket);
        }
        Ok(Self(sockets))
    }

    /// Returns the socket with this address, or listens on it.
    ///
    /// # Errors
    /// As [`bind`].
    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        flag: &str,
    ) -> Result<tokio::net::TcpListener, Failure> {
        match self.0.remove(&address) {
            Some(socket) => {
                tokio::net::TcpListener::from_std(socket).map_err(|error| Failure::run(&error))
            }
            None => bind(address, flag),
        }
    }

    /// Checks that each socket was used. Connections to another would wait for ever.
    pub(crate) fn check_all_used(&self) -> Result<(), Failure> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(address) => Err(Failure::Usage(format!(
                "the systemd unit listens on {address}, and no listener of the configuration has \
                 this address: set `listen`, `tls_listen` or `admin` to it, or correct \
                 `ListenStream=`"
            ))),
        }
    }
}
