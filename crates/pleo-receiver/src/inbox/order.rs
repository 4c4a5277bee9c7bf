//! The dispatch order among endpoints.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

/// The place of a message in the dispatch order of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    urgency: Urgency,
    sequence: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Expires(Timestamp),
    Never,
    Expired(Timestamp),
}

impl Rank {
    pub(super) fn new(expires_at: Option<Timestamp>, now: Timestamp, sequence: i64) -> Self {
        let urgency = match expires_at {
            Some(at) if at > now => Urgency::Expires(at),
            None => Urgency::Never,
            Some(at) => Urgency::Expired(at),
        };
        Self { urgency, sequence }
    }

    pub(super) const fn sequence(self) -> i64 {
        self.sequence
    }
}

/// Ready messages of an endpoint, in order, as many as may be leased.
pub(super) type Queue = (Arc<str>, VecDeque<Rank>);

/// Takes turns among endpoints: every second message is the most urgent of all, and the messages
/// between belong to the endpoint whose last turn is longest ago.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: u64,
    /// The last turn of each endpoint.
    last: HashMap<Arc<str>, u64>,
}

impl Turns {
    /// Takes up to `max` messages from the queues.
    pub(super) fn take(&mut self, mut queues: Vec<Queue>, max: usize) -> Vec<Rank> {
        let mut taken = Vec::new();
        while taken.len() < max {
            queues.retain(|(_, queue)| !queue.is_empty());
            let by_urgency = self.turn.is_multiple_of(2);
            let next = queues.iter_mut().min_by_key(|(endpoint, queue)| {
                let last = (!by_urgency).then(|| self.last.get(endpoint).copied());
                (last, queue.front().copied())
            });
            let Some((endpoint, queue)) = next else { break };
            self.turn += 1;
            self.last.insert(Arc::clone(endpoint), self.turn);
            taken.extend(queue.pop_front());
        }
        taken
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn queue(name: &str, ranks: impl IntoIterator<Item = Rank>) -> Queue {
        (name.into(), ranks.into_iter().collect())
    }

    #[test]
    fn orders_live_messages_before_those_without_expiry_before_expired() {
        let now = at(100);
        let rank = |expires_at: Option<i64>, sequence| Rank::new(expires_at.map(at), now, sequence);
        let mut ranks = [
            rank(Some(99), 1),
            rank(None, 2),
            rank(Some(300), 3),
            rank(Some(100), 4),
            rank(Some(101), 5),
            rank(None, 6),
        ];
        ranks.sort_unstable();
        assert_eq!(ranks.map(Rank::sequence), [5, 3, 2, 6, 1, 4]);
    }

    #[test]
    fn serves_each_endpoint_within_two_rounds_whatever_the_expiries() {
        let now = at(0);
        let mut turns = Turns::default();
        for round in 0..20 {
            // Sixteen endpoints with expiring messages, one without.
            let mut taken = Vec::new();
            for lease in 0..34 {
                let mut queues: Vec<_> = (0..16)
                    .map(|n| {
                        let sequence = round * 1000 + lease * 20 + n;
                        let rank = Rank::new(Some(at(60)), now, sequence);
                        queue(&format!("busy-{n}"), [rank])
                    })
                    .collect();
                queues.push(queue("quiet", [Rank::new(None, now, -1)]));
                taken.extend(turns.take(queues, 1));
            }
            assert!(taken.iter().any(|rank| rank.sequence() == -1), "{round}");
        }
    }

    #[test]
    fn gives_every_second_turn_to_the_most_urgent_message() {
        let now = at(0);
        let mut turns = Turns::default();
        let urgent = queue("a", (0..8).map(|n| Rank::new(Some(at(60)), now, n)));
        let others = queue("b", (100..108).map(|n| Rank::new(None, now, n)));
        let taken = turns.take(vec![urgent, others], 8);
        let urgent = taken.iter().filter(|rank| rank.sequence() < 100).count();
        assert!(urgent >= 4, "{taken:?}");
    }
}
