//! Reads keys from the terminal, without Enter.

#[cfg(unix)]
pub(super) use self::unix::Keys;

#[cfg(unix)]
mod unix {
    use std::io::{self, IsTerminal as _, Read as _};
    use std::thread;

    use rustix::process::getpgrp;
    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
    };
    use tokio::signal::unix::{Signal, SignalKind, signal};
    use tokio::sync::mpsc;

    /// Reads keys from a terminal. Restores the terminal on drop.
    pub(in super::super) struct Keys {
        before: Termios,
        keys: mpsc::UnboundedReceiver<char>,
        /// Tells that the program continues after Ctrl-Z.
        continued: Signal,
    }

    impl Keys {
        /// Starts to read keys. Returns `None` unless standard input and output are a terminal, and
        /// the program is in its foreground.
        pub(in super::super) fn open() -> Option<Self> {
            if !io::stdin().is_terminal() || !io::stdout().is_terminal() || !is_in_foreground() {
                return None;
            }
            let before = tcgetattr(io::stdin()).ok()?;
            let continued = rustix::process::Signal::CONT.as_raw();
            let continued = signal(SignalKind::from_raw(continued)).ok()?;
            let (sender, keys) = mpsc::unbounded_channel();
            // Ends with the program: a read from a terminal cannot be canceled.
            let thread = thread::Builder::new().name("keys".to_owned());
            thread.spawn(move || read(&sender)).ok()?;
            let opened = Self {
                before,
                keys,
                continued,
            };
            opened.enter();
            Some(opened)
        }

        /// Returns the next key.
        pub(in super::super) async fn next(&mut self) -> char {
            loop {
                tokio::select! {
                    key = self.keys.recv() => match key {
                        Some(key) => return key,
                        None => core::future::pending().await,
                    },
                    _ = self.continued.recv() => self.enter(),
                }
            }
        }

        /// Lets the terminal pass on each key at once, without showing it. Ctrl-C stays a signal.
        fn enter(&self) {
            let mut mode = self.before.clone();
            mode.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            mode.special_codes[SpecialCodeIndex::VMIN] = 1;
            mode.special_codes[SpecialCodeIndex::VTIME] = 0;
            set(&mode);
        }
    }

    impl Drop for Keys {
        fn drop(&mut self) {
            set(&self.before);
        }
    }

    /// Sets the mode of the terminal. Does nothing in the background, where it would stop the
    /// program.
    fn set(mode: &Termios) {
        if is_in_foreground() {
            // Fails if the terminal is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, mode);
        }
    }

    /// Returns `true` also if the terminal does not control the program: it then stops nobody.
    fn is_in_foreground() -> bool {
        tcgetpgrp(io::stdin()).map_or(true, |group| group == getpgrp())
    }

    fn read(keys: &mpsc::UnboundedSender<char>) {
        let mut bytes = [0; 64];
        loop {
            match io::stdin().read(&mut bytes) {
                Ok(read) if read > 0 => {
                    let pressed = keys_of(bytes.get(..read).unwrap_or_default());
                    if pressed.into_iter().any(|key| keys.send(key).is_err()) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    }

    /// Returns the keys of one letter. Leaves out arrows and function keys, which begin with Esc and
    /// have letters too (ECMA-48 section 5.4).
    fn keys_of(bytes: &[u8]) -> Vec<char> {
        let mut bytes = bytes.iter().copied();
        let mut keys = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte != b'\x1b' {
                keys.push(char::from(byte));
                continue;
            }
            match bytes.next() {
                Some(b'[') => {
                    bytes.by_ref().find(|byte| matches!(byte, 0x40..=0x7e));
                }
                Some(b'O') => {
                    bytes.next();
                }
                _ => {}
            }
        }
        keys
    }

    #[cfg(test)]
    mod tests {
        use super::keys_of;

        #[test]
        fn leaves_out_arrows_and_function_keys() {
            for (bytes, keys) in [
                (&b"er"[..], "er"),
                (b"\x1b[Ar", "r"),
                (b"\x1b[1;5vr", "r"),
                (b"\x1bOq?", "?"),
                (b"\x1bqe", "e"),
                (b"e\x1b", "e"),
                (b"\x1b[", ""),
            ] {
                assert_eq!(String::from_iter(keys_of(bytes)), keys);
            }
        }
    }
}

/// Reads no keys on this system.
#[cfg(not(unix))]
pub(super) enum Keys {}

#[cfg(not(unix))]
impl Keys {
    pub(super) const fn open() -> Option<Self> {
        None
    }

    pub(super) async fn next(&mut self) -> char {
        match *self {}
    }
}
