//! The memory that this module shares with JavaScript. Only this file reads it by `unsafe` code.

#![allow(
    unsafe_code,
    reason = "JavaScript passes addresses, and keeps copies of the state"
)]

use core::cell::UnsafeCell;
use core::slice;

use crate::State;

struct Shared(UnsafeCell<State>);

// SAFETY: the memory is not shared between threads: the module does not import one.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State::EMPTY));

/// Returns the state. Each exported function calls it once.
pub(crate) fn state() -> &'static mut State {
    // SAFETY: no other reference exists, because each exported function calls this once, none calls
    // another, and none keeps the reference. JavaScript writes here only between calls, and only copies
    // of an earlier state, whose references lead to the same input at the same place.
    unsafe { &mut *STATE.0.get() }
}

/// Returns the bytes that JavaScript wrote at an address. They stay there until the call returns, and
/// are there again in every call that uses a verification which borrows them.
pub(crate) fn input(at: usize, len: usize) -> &'static [u8] {
    // SAFETY: `at` is not null, since the stack comes first. JavaScript wrote all `len` bytes, behind
    // everything that the linker placed, and writes nothing during a call. An address beyond the memory
    // stops the program.
    unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(at), len) }
}
