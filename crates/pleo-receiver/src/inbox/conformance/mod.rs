//! Tests a store against the contract of [`Inbox`](super::Inbox). Feature `conformance`, for tests.
//!
//! A [`Harness`] opens the store and controls its time. [`tests!`] generates the tests: one for each
//! sentence of the contract, and `matches_model`, which compares the store with a model for random
//! operations.
//!
//! ```
//! use core::time::Duration;
//! use std::sync::Arc;
//!
//! use pleo_receiver::inbox::conformance::{self, Harness, ManualClock};
//! use pleo_receiver::jiff::Timestamp;
//! use pleo_receiver::inbox::Clock;
//! use pleo_receiver::{Inbox, MemoryInbox};
//!
//! struct Memory(ManualClock);
//!
//! impl Harness for Memory {
//!     fn new() -> Self {
//!         Self(ManualClock::default())
//!     }
//!
//!     async fn open(&self) -> Arc<dyn Inbox> {
//!         Arc::new(MemoryInbox::with_clock(Arc::new(self.0.clone())))
//!     }
//!
//!     async fn advance(&self, duration: Duration) {
//!         self.0.advance(duration);
//!     }
//!
//!     async fn now(&self) -> Timestamp {
//!         self.0.now()
//!     }
//! }
//!
//! conformance::tests!(Memory);
//! ```
//!
//! A store that keeps its messages implements [`reopen`](Harness::reopen) too. The environment variable
//! `PROPTEST_CASES` sets the number of random sequences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "tests fail loudly"
)]

#[doc(hidden)]
pub mod cases;
mod clock;
mod harness;
mod model;
mod suite;

pub use clock::ManualClock;
pub use harness::Harness;
#[doc(hidden)]
pub use model::matches_model;
#[doc(hidden)]
pub use suite::{Suite, run};

#[doc(inline)]
pub use crate::__inbox_conformance_tests as tests;

/// Generates the tests of a store from the type of its [`Harness`](harness::Harness): functions with
/// `#[test]`.
#[doc(hidden)]
#[macro_export]
macro_rules! __inbox_conformance_tests {
    ($harness:ty) => {
        $crate::__inbox_conformance_tests! {
            $harness:
            append::keeps_first_body_of_key,
            append::stores_id_once_per_endpoint,
            append::answers_each_concurrent_append,
            append::keeps_message_unchanged,
            append::stores_time_of_arrival_in_milliseconds,
            append::dropped_append_is_done_or_undone,
            append::does_nothing_before_first_poll,
            lease::leases_message_once,
            lease::leases_up_to_limits,
            lease::counts_leases_until_they_end,
            lease::processes_lease_each_message_once,
            lease::limits_hold_for_all_processes,
            lease::says_when_next_message_is_due,
            lease::accepts_longest_durations,
            order::leases_live_by_expiry_then_arrival_then_expired,
            order::leases_equal_expiries_by_arrival,
            order::leases_message_that_expires_meanwhile_last,
            order::leases_earliest_expiry_of_many,
            order::leases_retries_and_released_messages_in_order,
            order::leases_from_each_endpoint_within_two_rounds,
            order::gives_every_second_lease_to_most_urgent_message,
            order::leaves_out_endpoint_at_its_limit,
            time::redelivers_after_lease_ends,
            time::renewal_extends_lease,
            time::renewed_lease_ends,
            time::renewal_shortens_lease,
            time::renewal_returns_lost_leases,
            time::renewal_revives_ended_lease_or_reports_it_lost,
            time::clock_steps_neither_end_nor_prolong_leases,
            time::retry_is_ready_after_its_delay,
            time::retry_is_not_ready_a_nanosecond_early,
            time::retry_from_year_ahead_is_ready_within_its_delay,
            time::reopened_store_retries_after_delay,
            time::reopened_store_retries_within_delay_after_clock_is_set_back,
            time::delays_message_after_repeated_losses,
            time::lost_lease_can_be_replaced_by_other_process,
            complete::done_message_is_not_leased,
            complete::dead_message_is_not_leased,
            complete::keeps_last_error_after_success,
            complete::release_does_not_count_attempt,
            complete::completes_lease_once,
            complete::refuses_completion_of_earlier_lease,
            complete::refuses_completion_of_unknown_lease,
            complete::records_outcome_of_ended_lease_or_reports_it_lost,
            complete::truncates_long_error_between_characters,
            complete::keeps_history_of_attempts,
            complete::records_lost_attempt,
            complete::bounds_history_of_attempts,
            complete::deletes_history_with_message,
            manage::replays_id_in_any_state_and_endpoint,
            manage::replays_only_dead_messages,
            manage::replays_ready_message_once,
            manage::does_not_replay_leased_message,
            manage::replays_scheduled_retry_at_once,
            manage::replays_and_prunes_oldest_up_to_limit,
            manage::selects_messages,
            manage::does_not_prune_pending_messages,
            manage::stores_pruned_message_again,
            manage::does_not_lease_from_paused_endpoint,
            manage::shows_paused_endpoints,
            list::lists_by_arrival_in_pages,
            list::filters_pages,
            list::cursor_stays_valid_while_messages_change,
            list::page_that_ends_with_last_message_has_no_next,
            list::list_from_last_position_misses_no_append,
            list::gets_nothing_for_unknown_key,
            list::counts_messages_by_endpoint_and_state,
            list::shows_ages_and_expiries_of_pending_messages,
            list::finds_oldest_pending_message_that_expires_last,
            list::shows_time_of_last_delivery,
            list::counts_message_once_while_state_changes,
            list::shows_lost_message_as_ready_after_next_lease,
            changed::resolves_after_each_kind_of_change,
            changed::lost_message_is_announced,
            changed::resolves_at_once_for_earlier_version,
            changed::settles_without_changes,
            changed::wakes_all_waiters,
            changed::dropped_waiter_loses_no_change,
            changed::close_wakes_waiters,
            close::closed_store_refuses_everything,
            close::close_finishes_queued_appends,
            close::reopened_store_has_everything,
            close::dropped_store_has_everything,
            close::outcome_survives_crash,
            faults::failed_operation_is_done_or_undone,
            faults::stored_messages_survive_failing_writes,
            faults::unreadable_message_blocks_no_other,
        }

        #[test]
        fn matches_model() {
            $crate::inbox::conformance::matches_model::<$harness>();
        }
    };
    ($harness:ty: $($module:ident::$name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                use $crate::inbox::conformance;
                conformance::run::<$harness, _>(conformance::cases::$module::$name);
            }
        )*
    };
}
