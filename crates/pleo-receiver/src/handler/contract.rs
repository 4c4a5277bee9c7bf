//! The contract of a handler.

use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::error::Error;

use super::delivery::Delivery;

/// The future that a [`Handler`] returns.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send + 'a>>;

/// Handles messages, each at least once. [`handler_fn`] makes one of an async function or closure.
///
/// An error, a panic and a timeout count as a failed attempt, and [`HandlerError`] decides whether the
/// message is retried. A message may be redelivered even after a success, for instance if the machine
/// crashes before the outcome is recorded: use [`Delivery::id`] as idempotency key.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. The future is dropped at the delivery's
    /// [deadline](Delivery::deadline), at the end of a shutdown's grace period, or when the lease of
    /// the message is lost.
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_>;
}

/// A handler that calls a function, see [`handler_fn`].
#[derive(Clone)]
pub struct HandlerFn<F>(F);

/// Makes a handler of an async function or closure.
///
/// ```
/// use pleo_receiver::handler_fn;
///
/// let handler = handler_fn(async |delivery| {
///     let body = std::str::from_utf8(delivery.body())?;
///     println!("{}: {} characters", delivery.id(), body.chars().count());
///     Ok(())
/// });
/// ```
///
/// For state, clone it for each message, or implement [`Handler`] for a type that has it:
///
/// ```
/// use pleo_receiver::handler_fn;
/// use tokio::sync::mpsc;
///
/// let (sender, _receiver) = mpsc::channel(10);
/// let handler = handler_fn(move |delivery| {
///     let sender = sender.clone();
///     async move { Ok(sender.send(delivery).await?) }
/// });
/// ```
pub const fn handler_fn<F, Fut>(function: F) -> HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    HandlerFn(function)
}

impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    fn handle(&self, delivery: Delivery) -> HandlerFuture<'_> {
        Box::pin((self.0)(delivery))
    }
}

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFn").finish_non_exhaustive()
    }
}

/// Why a handler failed, and whether the message is retried. The error and its causes are logged and
/// stored with the message.
///
/// `?` converts any error to one that is retried with backoff. The type itself is not an [`Error`], so
/// that this conversion exists.
///
/// ```
/// use core::time::Duration;
/// use pleo_receiver::{Delivery, HandlerError};
///
/// async fn book(delivery: Delivery) -> Result<(), HandlerError> {
///     let text = std::str::from_utf8(delivery.body())?; // retried with backoff
///     if text.is_empty() {
///         return Err("nothing to book")?; // also a text, or a `Box<dyn Error + Send + Sync>`
///     }
///     if text.contains("later") {
///         return Err(HandlerError::retry_after(Duration::from_secs(90), "the ledger is busy"));
///     }
///     let amount: u64 = text.parse().map_err(HandlerError::permanent)?; // dead immediately
///     println!("{amount}");
///     Ok(())
/// }
/// ```
pub struct HandlerError {
    retry: Retry,
    error: Box<dyn Error + Send + Sync>,
}

/// When a message is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Backoff,
    After(Duration),
    Never,
}

impl HandlerError {
    /// The message is retried with the dispatcher's backoff.
    pub fn retry(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Retry::Backoff, error)
    }

    /// The message is retried after this delay, at most
    /// [`max_delay`](crate::DispatchOptions::max_delay). The attempt counts.
    pub fn retry_after(after: Duration, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Retry::After(after), error)
    }

    /// The message is not retried: it is dead until somebody replays it.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Retry::Never, error)
    }

    fn new(retry: Retry, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            retry,
            error: error.into(),
        }
    }

    /// Returns `true` if the message is not retried.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self.retry, Retry::Never)
    }

    /// Returns the delay of [`retry_after`](Self::retry_after).
    #[must_use]
    pub const fn delay(&self) -> Option<Duration> {
        match self.retry {
            Retry::After(delay) => Some(delay),
            Retry::Backoff | Retry::Never => None,
        }
    }

    /// Returns the error.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }

    pub(crate) const fn when(&self) -> Retry {
        self.retry
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl fmt::Display for HandlerError {
    /// Formats the error, without its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("retry", &self.retry)
            .field("error", &self.error)
            .finish()
    }
}
