//! The messages, packed.
//!
//! Memory that was never used before costs more than what is written there: the system hands it out
//! page by page. So a message takes as little of it as possible, and its text a piece of a large
//! chunk instead of an allocation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use pleo_events::Outline;

use super::super::{Entry, NewMessage, Origin, State, timestamp};

/// How much memory for text is asked for at once.
const CHUNK: usize = 256 * 1024;

/// A text that is longer has memory of its own, so that little of a chunk is left over.
const LONG: usize = CHUNK / 16;

/// How many messages there is room for at once.
const SEGMENT: usize = 1024;

/// What comes after all that expires.
pub(super) const NEVER: i64 = i64::MAX;

/// A message, and where it stands. Times are in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) sequence: i64,
    pub(super) endpoint: Arc<str>,
    /// The id, and behind it the body.
    text: Bytes,
    id_len: usize,
    received_at: i64,
    /// [`NEVER`] until somebody looked.
    pub(super) expires_at: i64,
    pub(super) due_at: Option<i64>,
    pub(super) claims: i64,
    pub(super) attempts: u32,
    pub(super) origin: Origin,
    pub(super) state: State,
    pub(super) leased: bool,
    pub(super) last_error: Option<Box<str>>,
}

impl Row {
    /// A message that has no place yet.
    pub(super) fn new(message: &NewMessage, chunk: &Chunk) -> Self {
        let NewMessage {
            webhook_id, body, ..
        } = message;
        Self {
            sequence: 0,
            endpoint: Arc::clone(&message.endpoint),
            text: chunk.pack(webhook_id.as_bytes(), body),
            id_len: webhook_id.len(),
            received_at: message.received_at.as_millisecond(),
            expires_at: NEVER,
            due_at: None,
            claims: 0,
            attempts: 0,
            origin: message.origin,
            state: State::Pending,
            leased: false,
            last_error: None,
        }
    }

    pub(super) fn webhook_id(&self) -> &str {
        // It was one.
        str::from_utf8(&self.text[..self.id_len]).unwrap_or_default()
    }

    pub(super) fn body(&self) -> Bytes {
        self.text.slice(self.id_len..)
    }

    /// As [`NewMessage::outline`].
    pub(super) fn outline(&self) -> Option<Outline<'_>> {
        Outline::parse(&self.text[self.id_len..]).ok()
    }

    /// Of two with one key.
    pub(super) fn has_body_of(&self, other: &Self) -> bool {
        self.text == other.text
    }

    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.webhook_id() == other.webhook_id()
    }

    pub(super) fn received_at(&self) -> Timestamp {
        timestamp(self.received_at)
    }

    pub(super) fn message(&self) -> NewMessage {
        NewMessage {
            endpoint: Arc::clone(&self.endpoint),
            webhook_id: self.webhook_id().into(),
            received_at: self.received_at(),
            origin: self.origin,
            body: self.body(),
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let outline = self.outline();
        let outline = outline.as_ref();
        let expires_at = outline.and_then(|outline| outline.expires_at);
        Entry {
            sequence: self.sequence,
            endpoint: self.endpoint.to_string(),
            webhook_id: self.webhook_id().to_owned(),
            event_type: outline.map(|outline| outline.event_type.to_string()),
            event_id: outline.and_then(|outline| outline.event_id.as_deref().map(String::from)),
            resource_id: outline
                .and_then(|outline| outline.resource_id.as_deref().map(String::from)),
            origin: self.origin,
            state: self.state,
            attempts: self.attempts,
            received_at: self.received_at(),
            expires_at: expires_at.map(|at| timestamp(at.as_millisecond())),
            due_at: self.due_at.map(timestamp),
            last_error: self.last_error.as_deref().map(String::from),
            body_len: u64::try_from(self.text.len() - self.id_len).unwrap_or(u64::MAX),
        }
    }
}

/// Where the next texts go.
#[derive(Debug, Default)]
pub(super) struct Chunk(Mutex<BytesMut>);

impl Chunk {
    fn pack(&self, id: &[u8], body: &[u8]) -> Bytes {
        let len = id.len() + body.len();
        let write = |text: &mut BytesMut| {
            text.extend_from_slice(id);
            text.extend_from_slice(body);
            text.split().freeze()
        };
        if len > LONG {
            return write(&mut BytesMut::with_capacity(len));
        }
        // Nothing in here panics half way.
        let mut chunk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chunk.capacity() < len {
            *chunk = BytesMut::with_capacity(CHUNK);
        }
        write(&mut chunk)
    }
}

/// All messages, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Each by the place of the first message that it had. The last one gets what is new, until it
    /// would have to grow.
    segments: BTreeMap<i64, Vec<Row>>,
    /// The place of the last message that there ever was.
    pub(super) last: i64,
}

impl Rows {
    /// Adds a message at the end.
    pub(super) fn push(&mut self, mut row: Row) {
        self.last += 1;
        row.sequence = self.last;
        let last = self.segments.last_entry();
        let mut last = last.filter(|last| last.get().len() < last.get().capacity());
        match &mut last {
            Some(last) => last.get_mut().push(row),
            None => {
                let mut segment = Vec::with_capacity(SEGMENT);
                segment.push(row);
                self.segments.insert(self.last, segment);
            }
        }
    }

    pub(super) fn get(&self, sequence: i64) -> Option<&Row> {
        let (_, segment) = self.segments.range(..=sequence).next_back()?;
        segment.get(place(segment, sequence)?)
    }

    pub(super) fn get_mut(&mut self, sequence: i64) -> Option<&mut Row> {
        let (_, segment) = self.segments.range_mut(..=sequence).next_back()?;
        let place = place(segment, sequence)?;
        segment.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.segments.values().flatten()
    }

    /// Deletes those that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Row) -> bool) {
        self.segments.retain(|_, segment| {
            let before = segment.len();
            segment.retain(&mut keep);
            if segment.len() < before && segment.len() <= segment.capacity() / 2 {
                // So that the few which stay don't keep the memory of the many which went.
                for row in &mut *segment {
                    row.text = Bytes::copy_from_slice(&row.text);
                }
                segment.shrink_to_fit();
            }
            !segment.is_empty()
        });
    }
}

fn place(segment: &[Row], sequence: i64) -> Option<usize> {
    segment
        .binary_search_by_key(&sequence, |row| row.sequence)
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;

    fn push(rows: &mut Rows, chunk: &Chunk, id: &str, body: &[u8]) {
        let message = NewMessage::new("one", id, Bytes::copy_from_slice(body));
        rows.push(Row::new(&message, chunk));
    }

    #[test]
    fn each_is_found_at_its_place_as_it_was() {
        let (mut rows, chunk) = (Rows::default(), Chunk::default());
        let bodies: Vec<_> = (0..40_usize).map(|n| vec![b'x'; n * n * 10]).collect();
        for (number, body) in bodies.iter().enumerate() {
            push(&mut rows, &chunk, &number.to_string(), body);
        }
        for (number, body) in bodies.iter().enumerate() {
            let row = rows.get(i64::try_from(number).unwrap() + 1).unwrap();
            assert_eq!(row.webhook_id(), number.to_string());
            assert_eq!(row.body()[..], body[..]);
        }
        assert!(rows.get(0).is_none() && rows.get(41).is_none());
    }

    #[test]
    fn few_that_stay_keep_no_memory_of_those_that_went() {
        let (mut rows, chunk) = (Rows::default(), Chunk::default());
        let count = i64::try_from(SEGMENT).unwrap() * 3 + 10;
        for number in 1..=count {
            push(&mut rows, &chunk, &number.to_string(), b"body");
        }
        let stays = |row: &Row| row.sequence % 100 == 0;
        rows.retain(stays);
        let expected: Vec<i64> = (1..=count).filter(|number| number % 100 == 0).collect();
        let sequences = |rows: &Rows| rows.iter().map(|row| row.sequence).collect::<Vec<_>>();
        assert_eq!(sequences(&rows), expected);
        for sequence in 1..=count {
            let id = rows.get(sequence).map(Row::webhook_id);
            let expected = (sequence % 100 == 0).then(|| sequence.to_string());
            assert_eq!(id, expected.as_deref());
        }
        assert!(rows.iter().all(|row| row.text.is_unique()));
        let room: usize = rows.segments.values().map(Vec::capacity).sum();
        assert!(room < expected.len() * 2, "{room}");

        push(&mut rows, &chunk, "next", b"body");
        assert_eq!(rows.get(count + 1).map(Row::webhook_id), Some("next"));
        rows.retain(|row| row.sequence > count);
        assert_eq!(sequences(&rows), [count + 1]);
        rows.retain(|_| false);
        assert!(rows.segments.is_empty());
        push(&mut rows, &chunk, "last", b"body");
        assert_eq!(sequences(&rows), [count + 2]);
    }
}
