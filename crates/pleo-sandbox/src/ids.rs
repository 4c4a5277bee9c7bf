//! Identifiers and secrets, which repeat with the seed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// What an identifier is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    Company,
    Token,
    Subscription,
    Secret,
    Activity,
    ExportJob,
    Vendor,
    Event,
    Message,
}

/// Generates identifiers: the n-th of a kind depends only on the seed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ids {
    seed: u64,
    counters: BTreeMap<Kind, u64>,
}

impl Ids {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self {
            seed: seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
            counters: BTreeMap::new(),
        }
    }

    pub(crate) fn uuid(&mut self, kind: Kind) -> Uuid {
        Builder::from_random_bytes(self.bytes(kind)).into_uuid()
    }

    /// Generates a message id. Ids sort by creation, as Pleo's do.
    pub(crate) fn message(&mut self) -> String {
        let random = Uuid::from_bytes(self.bytes(Kind::Message));
        let number = self
            .counters
            .get(&Kind::Message)
            .copied()
            .unwrap_or_default();
        format!("msg_{number:08}{}", random.simple())
    }

    /// Generates a signing secret of 24 bytes, as in Pleo's published example.
    pub(crate) fn secret(&mut self) -> String {
        let key: [u8; 24] = self.bytes(Kind::Secret);
        format!("whsec_{}", STANDARD.encode(key))
    }

    /// Generates a bearer token in the form of a JWT.
    pub(crate) fn bearer(&mut self, company: Uuid) -> String {
        let signature: [u8; 32] = self.bytes(Kind::Token);
        let payload = format!(r#"{{"iss":"pleo-sandbox","sub":"{company}"}}"#);
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(payload),
            URL_SAFE_NO_PAD.encode(signature)
        )
    }

    pub(crate) fn api_key(&mut self) -> String {
        let random: [u8; 16] = self.bytes(Kind::Token);
        format!("pak_{}", Uuid::from_bytes(random).simple())
    }

    fn bytes<const N: usize>(&mut self, kind: Kind) -> [u8; N] {
        let number = self.counters.entry(kind).or_default();
        *number += 1;
        // Odd multipliers spread neighbours over the generator's states.
        let stream = (1 + u64::from(kind.number())).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let position = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = fastrand::Rng::with_seed(self.seed ^ stream ^ position);
        let mut bytes = [0; N];
        random.fill(&mut bytes);
        bytes
    }
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Company => 0,
            Self::Token => 1,
            Self::Subscription => 2,
            Self::Secret => 3,
            Self::Activity => 4,
            Self::ExportJob => 5,
            Self::Vendor => 6,
            Self::Event => 7,
            Self::Message => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Ids, Kind};

    #[test]
    fn repeats_ids_of_seed_whatever_the_order() {
        let (mut one, mut other) = (Ids::new(Some(7)), Ids::new(Some(7)));
        let jobs = [one.uuid(Kind::ExportJob), one.uuid(Kind::ExportJob)];
        let (message, secret) = (one.message(), one.secret());
        assert_eq!((other.secret(), other.message()), (secret, message));
        assert_eq!(
            [other.uuid(Kind::ExportJob), other.uuid(Kind::ExportJob)],
            jobs
        );
        assert_ne!(Ids::new(Some(8)).uuid(Kind::ExportJob), jobs[0]);
        assert_ne!(Ids::new(None).secret(), Ids::new(None).secret());
    }

    #[test]
    fn never_repeats_an_id() {
        let mut ids = Ids::new(Some(0));
        let kinds = [Kind::ExportJob, Kind::Event, Kind::Subscription];
        let generated: BTreeSet<_> = (0..3000).map(|n| ids.uuid(kinds[n % 3])).collect();
        assert_eq!(generated.len(), 3000);
    }
}
