//! Secrets that were removed from an endpoint: a delivery signed with one is still rejected, but the
//! log tells it apart from a forgery.

use core::time::Duration;
use std::time::Instant;

use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier};

/// How long a removed secret is remembered: as long as the sender uses the old secret after a
/// rotation.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The secrets that were removed from an endpoint lately, the newest first. They accept nothing.
#[derive(Clone, Default)]
pub(crate) struct RemovedSecrets(Vec<(Secret, Instant)>);

impl RemovedSecrets {
    /// Returns the removed secrets after `before` was replaced by `after`. Keeps
    /// [`Verifier::MAX_SECRETS`] at most.
    pub(crate) fn replaced(&self, before: &[Secret], after: &[Secret], now: Instant) -> Self {
        let removed = before.iter().map(|secret| (secret, now));
        let earlier = self.0.iter().map(|(secret, at)| (secret, *at));
        let mut kept: Vec<(Secret, Instant)> = Vec::new();
        for (secret, at) in removed.chain(earlier) {
            let is_same = |other: &Secret| probe(other) == probe(secret);
            let is_known =
                after.iter().any(is_same) || kept.iter().any(|(other, _)| is_same(other));
            if !is_known && is_kept(at, now) && kept.len() < Verifier::MAX_SECRETS {
                kept.push((secret.clone(), at));
            }
        }
        Self(kept)
    }

    /// Returns `true` if a delivery that is not authentic is signed with a removed secret. Hashes the
    /// body once for each of them.
    pub(crate) fn signed(&self, headers: &SignatureHeaders<'_>, body: &[u8], now: Instant) -> bool {
        let kept = self.0.iter().filter(|(_, at)| is_kept(*at, now));
        let verifier = Verifier::from_secrets(kept.map(|(secret, _)| secret.clone()));
        // The tolerance was checked before: a delivery on its edge must not pass out of it here.
        verifier.is_ok_and(|verifier| {
            let verifier = verifier.with_tolerance(Duration::MAX);
            verifier.verify_now(headers, body).is_ok()
        })
    }
}

fn is_kept(removed_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(removed_at) < KEPT
}

/// Returns a value that only the same secret makes.
fn probe(secret: &Secret) -> Option<impl PartialEq + use<>> {
    let signature = secret.sign("msg_probe", 0, b"").ok();
    signature.map(|signature| signature.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret::from_bytes(&[byte; 24]).unwrap()
    }

    fn secrets<const N: usize>(bytes: [u8; N]) -> [Secret; N] {
        bytes.map(secret)
    }

    /// Returns which of the secrets 1 to 9 are remembered.
    fn remembered(removed: &RemovedSecrets, now: Instant) -> Vec<u8> {
        let is_signed = |byte: &u8| {
            let signature = secret(*byte).sign("msg_1", 7, b"{}").unwrap().to_string();
            let headers = [
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", "7"),
                ("webhook-signature", &*signature),
            ];
            let headers = SignatureHeaders::from_pairs(headers).unwrap();
            assert!(!removed.signed(&headers, b"[]", now), "another body");
            removed.signed(&headers, b"{}", now)
        };
        (1..10).filter(is_signed).collect()
    }

    #[test]
    fn remembers_removed_secrets_for_a_day() {
        let start = Instant::now();
        let none = RemovedSecrets::default();
        assert!(remembered(&none, start).is_empty());
        let first = none.replaced(&secrets([1, 2]), &secrets([2, 3]), start);
        assert_eq!(remembered(&first, start), [1]);
        let second = first.replaced(
            &secrets([2, 3]),
            &secrets([3]),
            start + Duration::from_secs(3600),
        );
        assert_eq!(remembered(&second, start), [1, 2]);
        assert_eq!(remembered(&second, start + KEPT), [2]);
        let later = second.replaced(&secrets([3]), &secrets([3]), start + KEPT);
        assert_eq!(remembered(&later, start), [2], "the first is forgotten");
    }

    #[test]
    fn forgets_secret_that_is_added_again() {
        let now = Instant::now();
        let removed = RemovedSecrets::default().replaced(&secrets([1]), &secrets([2]), now);
        let added = removed.replaced(&secrets([2]), &secrets([2, 1]), now);
        assert!(remembered(&added, now).is_empty());
    }

    #[test]
    fn reloads_without_change_push_nothing_out() {
        let now = Instant::now();
        let mut removed = RemovedSecrets::default().replaced(&secrets([1]), &secrets([2]), now);
        for _ in 0..9 {
            removed = removed.replaced(&secrets([2]), &secrets([2]), now);
        }
        assert_eq!(remembered(&removed, now), [1]);
        for byte in 2..9 {
            removed = removed.replaced(&secrets([byte]), &secrets([byte + 1]), now);
        }
        assert_eq!(remembered(&removed, now), [5, 6, 7, 8], "the last four");
    }
}
