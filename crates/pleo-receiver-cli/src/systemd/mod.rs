//! What systemd gives a service, and wants to hear from it. Without systemd, nothing happens.

mod notify;
mod sockets;

pub(crate) use self::notify::{State, notify, send_pings};
pub(crate) use self::sockets::Sockets;
