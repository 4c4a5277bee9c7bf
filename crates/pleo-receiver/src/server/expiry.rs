//! The expiry of a certificate, and when to warn of it.

use core::time::Duration;
use std::path::Path;

use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Reader, SliceReader, Tag};
use jiff::{SignedDuration, Timestamp};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::telemetry;

/// How long before its expiry a certificate is warned of.
const NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The time between two warnings.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Returns the end of a certificate's validity (`notAfter`, RFC 5280 section 4.1.2.5); `None` if it
/// cannot be parsed.
pub(super) fn expires_at(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let since_epoch = not_after(certificate).ok()?;
    Timestamp::from_second(since_epoch.as_secs().try_into().ok()?).ok()
}

/// Reads `notAfter` of a certificate (RFC 5280 section 4.1), as the time since the Unix epoch.
fn not_after(certificate: &[u8]) -> Result<Duration, der::Error> {
    let mut certificate = SliceReader::new(AnyRef::from_der(certificate)?.value())?;
    let mut fields = SliceReader::new(certificate.decode::<AnyRef<'_>>()?.value())?;
    let has_version = Tag::peek(&fields)?.is_context_specific();
    // The serial number, the algorithm of the signature and the issuer follow.
    for _ in 0..3 + usize::from(has_version) {
        fields.tlv_bytes()?;
    }
    let mut validity = SliceReader::new(fields.decode::<AnyRef<'_>>()?.value())?;
    let _not_before = validity.tlv_bytes()?;
    match Tag::peek(&validity)? {
        Tag::UtcTime => Ok(validity.decode::<UtcTime>()?.to_unix_duration()),
        _ => Ok(validity.decode::<GeneralizedTime>()?.to_unix_duration()),
    }
}

/// Warns daily of a certificate that expires soon or has expired.
#[derive(Debug, Default)]
pub(super) struct ExpiryWarnings {
    /// The expiry of the last warning, and its time.
    last: Option<(Timestamp, Timestamp)>,
}

impl ExpiryWarnings {
    /// Logs a warning if it is time for one.
    pub(super) fn log(&mut self, certificate: &Path, expires_at: Timestamp, now: Timestamp) {
        if !self.is_ready(expires_at, now) {
            return;
        }
        let certificate = certificate.display();
        if now < expires_at {
            telemetry::certificate_expires_soon(certificate, expires_at);
        } else {
            telemetry::certificate_expired(certificate, expires_at);
        }
    }

    fn is_ready(&mut self, expires_at: Timestamp, now: Timestamp) -> bool {
        if expires_at.duration_since(now) > NOTICE {
            return false;
        }
        let is_repeated = self.last.is_some_and(|(expiry, time)| {
            let has_just_expired = time < expires_at && expires_at <= now;
            expiry == expires_at && now.duration_since(time) < INTERVAL && !has_just_expired
        });
        if !is_repeated {
            self.last = Some((expires_at, now));
        }
        !is_repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_two_weeks_before_expiry_then_daily_and_at_expiry() {
        let expiry = Timestamp::UNIX_EPOCH;
        let hours = SignedDuration::from_hours;
        let mut warnings = ExpiryWarnings::default();
        for (hour, is_ready) in [
            (-14 * 24 - 1, false),
            (-14 * 24, true),
            (-14 * 24 + 1, false),
            (-13 * 24 - 1, false),
            (-13 * 24, true),
            (-1, true),
            (0, true),
            (1, false),
            (23, false),
            (24, true),
            (1000, true),
        ] {
            assert_eq!(
                warnings.is_ready(expiry, expiry + hours(hour)),
                is_ready,
                "{hour}"
            );
        }
        let renewed = expiry + hours(90 * 24);
        assert!(!warnings.is_ready(renewed, expiry + hours(1001)));
        let short = expiry + hours(1010);
        assert!(
            warnings.is_ready(short, expiry + hours(1001)),
            "another certificate"
        );
    }

    #[test]
    fn reads_expiry_of_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        // `UTCTime` until 2049, then `GeneralizedTime`.
        for (year, expected) in [
            (2026, "2026-02-28T00:00:00Z"),
            (2049, "2049-02-28T00:00:00Z"),
            (2050, "2050-02-28T00:00:00Z"),
            (9999, "9999-02-28T00:00:00Z"),
        ] {
            params.not_after = rcgen::date_time_ymd(year, 2, 28);
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der();
            assert_eq!(expires_at(der), expected.parse().ok());
            // No prefix and no changed byte makes it panic.
            for length in 0..der.len() {
                assert_eq!(
                    expires_at(&CertificateDer::from_slice(&der[..length])),
                    None
                );
                let mut changed = der.to_vec();
                changed[length] ^= 0x55;
                let _ = expires_at(&changed.into());
            }
        }
    }
}
