//! Lets a test that measures time run alone.
//!
//! All tests share a process and its threads. While other tests load the machine, a response
//! time does not measure the server.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static RUNNING: Mutex<Running> = Mutex::new(Running {
    shared: 0,
    exclusive: false,
});
static CHANGED: Condvar = Condvar::new();

struct Running {
    shared: usize,
    exclusive: bool,
}

/// The right to run, held by a test until it ends.
pub(crate) enum Turn {
    Shared,
    #[cfg(target_os = "linux")]
    Exclusive,
}

impl Turn {
    /// Waits until no test runs alone. One test may hold several shared turns.
    pub(crate) fn shared() -> Self {
        wait_while(|running| running.exclusive).shared += 1;
        Self::Shared
    }

    /// Waits until no other test runs. The caller must not hold another turn.
    #[cfg(target_os = "linux")]
    pub(crate) fn exclusive() -> Self {
        wait_while(|running| running.exclusive || running.shared > 0).exclusive = true;
        Self::Exclusive
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = lock();
        match self {
            Self::Shared => running.shared -= 1,
            #[cfg(target_os = "linux")]
            Self::Exclusive => running.exclusive = false,
        }
        drop(running);
        CHANGED.notify_all();
    }
}

fn wait_while(busy: impl Fn(&Running) -> bool) -> MutexGuard<'static, Running> {
    let wait = CHANGED.wait_while(lock(), |running| busy(running));
    wait.unwrap_or_else(PoisonError::into_inner)
}

fn lock() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
