//! Listening sockets.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::failure::Failure;

/// How many connections may wait to be accepted. The usual 128 are too few for a burst: the system
/// drops further attempts, and their clients retry only after a second.
const BACKLOG: u32 = 4096;

/// Listens on the address that the flag or key named `flag` gives.
pub(crate) fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| {
        let fix = fix(error.kind(), address.port());
        Failure::Run(format!(
            "`--{flag}`: cannot listen on {address}: {error}; {fix}"
        ))
    })
}

/// Returns the URL of a path at a listener.
pub(crate) fn url(scheme: &str, listener: &TcpListener, path: &str) -> Result<String, Failure> {
    let address = listener.local_addr();
    let address = address.map_err(|error| Failure::run(&error))?;
    Ok(format!("{scheme}://{address}{path}"))
}

/// Returns the address at which this machine can connect to a listener: loopback for one that listens
/// on all addresses.
pub(crate) fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Lets a restarted program listen while old connections are in TIME_WAIT. On Windows the option
    // has another meaning.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn fix(error: ErrorKind, port: u16) -> String {
    match error {
        ErrorKind::AddrInUse => format!(
            "another program listens on port {port}: stop it (`ss -ltnp` shows it), or choose \
             another port"
        ),
        ErrorKind::PermissionDenied => format!(
            "port {port} is privileged: choose one from 1024 on, or give the program \
             CAP_NET_BIND_SERVICE"
        ),
        ErrorKind::AddrNotAvailable => {
            "choose an address of this machine, or 0.0.0.0 or [::] for all of them".to_owned()
        }
        _ => "choose another address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::fix;

    #[test]
    fn suggests_unprivileged_port() {
        let text = fix(ErrorKind::PermissionDenied, 443);
        assert!(
            text.contains("port 443 is privileged: choose one from 1024 on"),
            "{text}"
        );
    }
}
