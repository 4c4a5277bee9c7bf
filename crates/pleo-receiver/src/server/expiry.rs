//! The expiry of a certificate, and when to warn of it.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::telemetry;

/// How long before its expiry a certificate is warned of.
const NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The time between two warnings.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// Returns the end of a certificate's validity (`notAfter`, RFC 5280 section 4.1.2.5); `None` if it
/// cannot be parsed.
pub(super) fn expires_at(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
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
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2100, 2, 28);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let expected = "2100-02-28T00:00:00Z".parse().unwrap();
        assert_eq!(expires_at(certificate.der()), Some(expected));
        assert_eq!(expires_at(&CertificateDer::from_slice(b"none")), None);
    }
}
