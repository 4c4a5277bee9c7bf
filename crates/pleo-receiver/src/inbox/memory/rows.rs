//! The messages, packed.
//!
//! Memory that was never used before costs more than what is written there: the system hands it out
//! page by page. So a message takes as little of it as possible, and its text a piece of a large
//! chunk instead of an allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use pleo_events::EventSummary;

use super::super::{Entry, Known, NewMessage, Origin, State, timestamp};

/// How much memory for text is asked for at once.
const CHUNK: usize = 256 * 1024;

/// A text that is longer has memory of its own, so that little of a chunk is left over.
const LONG: usize = CHUNK / 16;

/// How many messages there is room for at once.
const SEGMENT: usize = 1024;

/// What comes after all that expires.
const NEVER: i64 = i64::MAX;

/// A message, and where it stands. Times are in milliseconds since 1970.
#[derive(Clone, Debug)]
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
    fn new(sequence: i64, message: &NewMessage, text: Bytes) -> Self {
        Self {
            sequence,
            endpoint: Arc::clone(&message.endpoint),
            text,
            id_len: message.webhook_id.len(),
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

    fn id(&self) -> &[u8] {
        &self.text[..self.id_len]
    }

    fn body(&self) -> &[u8] {
        &self.text[self.id_len..]
    }

    pub(super) fn has_key(&self, endpoint: &str, webhook_id: &str) -> bool {
        self.has_id(webhook_id) && &*self.endpoint == endpoint
    }

    pub(super) fn has_id(&self, webhook_id: &str) -> bool {
        self.id() == webhook_id.as_bytes()
    }

    pub(super) fn has_body(&self, body: &[u8]) -> bool {
        self.body() == body
    }

    pub(super) fn webhook_id(&self) -> &str {
        // It was one.
        str::from_utf8(self.id()).unwrap_or_default()
    }

    /// As [`NewMessage::outline`].
    pub(super) fn summary(&self) -> Option<EventSummary<'_>> {
        EventSummary::parse(self.body()).ok()
    }

    /// How many bytes id and body have.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Its place in line, as its body has it.
    pub(super) fn rank(&self) -> (i64, i64) {
        let expires_at = self.summary().and_then(|outline| outline.expires_at);
        (
            expires_at.map_or(NEVER, Timestamp::as_millisecond),
            self.sequence,
        )
    }

    pub(super) fn received_at(&self) -> Timestamp {
        timestamp(self.received_at)
    }

    /// A body that keeps none of a chunk, however long it stays in somebody's hands.
    pub(super) fn own_body(&self) -> Bytes {
        if is_long(&self.text) {
            self.text.slice(self.id_len..)
        } else {
            Bytes::copy_from_slice(self.body())
        }
    }

    pub(super) fn message(&self) -> NewMessage {
        NewMessage {
            endpoint: Arc::clone(&self.endpoint),
            webhook_id: self.webhook_id().into(),
            received_at: self.received_at(),
            origin: self.origin,
            body: self.own_body(),
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let known = Known::of(self.summary());
        Entry {
            sequence: self.sequence,
            endpoint: self.endpoint.to_string(),
            webhook_id: self.webhook_id().to_owned(),
            event_type: known.event_type,
            event_id: known.event_id,
            resource_id: known.resource_id,
            origin: self.origin,
            state: self.state,
            attempts: self.attempts,
            received_at: self.received_at(),
            expires_at: known.expires_at,
            due_at: self.due_at.map(timestamp),
            last_error: self.last_error.as_deref().map(String::from),
            body_len: u64::try_from(self.body().len()).unwrap_or(u64::MAX),
        }
    }
}

/// All messages, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Each by the place of the first message that it had. The last one gets what is new, until it
    /// would have to grow.
    segments: BTreeMap<i64, Segment>,
    /// Where the next texts go.
    chunk: BytesMut,
    /// The place of the last message that there ever was.
    pub(super) last: i64,
}

#[derive(Debug)]
struct Segment {
    rows: Vec<Row>,
    /// How many bytes of chunks its messages had, with those that are deleted.
    packed: usize,
}

impl Rows {
    /// Adds a message at the end. A text that is long was made before, by [`long_text`].
    pub(super) fn push(&mut self, message: &NewMessage, long: Option<Bytes>) {
        self.last += 1;
        let text = long.unwrap_or_else(|| {
            let (id, body) = (message.webhook_id.as_bytes(), &message.body[..]);
            if self.chunk.capacity() < id.len() + body.len() {
                self.chunk = BytesMut::with_capacity(CHUNK);
            }
            self.chunk.extend_from_slice(id);
            self.chunk.extend_from_slice(body);
            self.chunk.split().freeze()
        });
        let packed = packed(&text);
        let row = Row::new(self.last, message, text);
        let last = self.segments.last_entry().map(|last| last.into_mut());
        match last.filter(|last| last.rows.len() < last.rows.capacity()) {
            Some(last) => {
                last.rows.push(row);
                last.packed += packed;
            }
            None => {
                let mut rows = Vec::with_capacity(SEGMENT);
                rows.push(row);
                self.segments.insert(self.last, Segment { rows, packed });
            }
        }
    }

    /// How many bytes of text fit into the chunk.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.chunk.capacity()
    }

    pub(super) fn get(&self, sequence: i64) -> Option<&Row> {
        let (_, Segment { rows, .. }) = self.segments.range(..=sequence).next_back()?;
        rows.get(place(rows, sequence)?)
    }

    pub(super) fn get_mut(&mut self, sequence: i64) -> Option<&mut Row> {
        let (_, Segment { rows, .. }) = self.segments.range_mut(..=sequence).next_back()?;
        let place = place(rows, sequence)?;
        rows.get_mut(place)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Row> {
        self.segments.values().flat_map(|segment| &segment.rows)
    }

    /// Deletes those that are not to be kept.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Row) -> bool) {
        self.segments.retain(|_, segment| {
            segment.rows.retain(&mut keep);
            segment.tidy();
            !segment.rows.is_empty()
        });
    }
}

impl Segment {
    /// Sees to it that what stays doesn't keep much more memory than it needs.
    fn tidy(&mut self) {
        let Self { rows, packed: all } = self;
        if rows.len() <= rows.capacity() / 2 {
            rows.shrink_to_fit();
        }
        let left: usize = rows.iter().map(|row| packed(&row.text)).sum();
        if left <= *all / 2 {
            for row in rows.iter_mut().filter(|row| !is_long(&row.text)) {
                row.text = Bytes::copy_from_slice(&row.text);
            }
            *all = left;
        }
    }
}

/// The text of a message, where it has memory of its own.
pub(super) fn long_text(message: &NewMessage) -> Option<Bytes> {
    let (id, body) = (message.webhook_id.as_bytes(), &message.body[..]);
    (id.len() + body.len() > LONG).then(|| [id, body].concat().into())
}

fn is_long(text: &[u8]) -> bool {
    text.len() > LONG
}

/// How many bytes of it are part of a chunk.
fn packed(text: &[u8]) -> usize {
    if is_long(text) { 0 } else { text.len() }
}

fn place(rows: &[Row], sequence: i64) -> Option<usize> {
    rows.binary_search_by_key(&sequence, |row| row.sequence)
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;

    fn push(rows: &mut Rows, id: &str, body: &[u8]) {
        let message = NewMessage::new("one", id, Bytes::copy_from_slice(body));
        rows.push(&message, long_text(&message));
    }

    fn sequences(rows: &Rows) -> Vec<i64> {
        rows.iter().map(|row| row.sequence).collect()
    }

    #[test]
    fn each_is_found_at_its_place_as_it_was() {
        let mut rows = Rows::default();
        let bodies: Vec<_> = (0..60_usize).map(|n| vec![b'x'; n * n * 10]).collect();
        for (number, body) in bodies.iter().enumerate() {
            push(&mut rows, &number.to_string(), body);
        }
        for (number, body) in bodies.iter().enumerate() {
            let row = rows.get(i64::try_from(number).unwrap() + 1).unwrap();
            assert_eq!(row.webhook_id(), number.to_string());
            assert!(row.has_body(body) && row.own_body() == body);
            // Long ones alone have their memory for themselves.
            assert_eq!(row.text.is_unique(), row.text.len() > LONG, "{number}");
        }
        assert!(rows.get(0).is_none() && rows.get(61).is_none());
    }

    #[test]
    fn few_that_stay_keep_no_memory_of_those_that_went() {
        let mut rows = Rows::default();
        let count = i64::try_from(SEGMENT).unwrap() * 3 + 10;
        for number in 1..=count {
            push(&mut rows, &number.to_string(), b"body");
        }
        // Little by little.
        for every in [2, 10, 100] {
            rows.retain(|row| row.sequence % every == 0);
        }
        let expected: Vec<i64> = (1..=count).filter(|number| number % 100 == 0).collect();
        assert_eq!(sequences(&rows), expected);
        for sequence in 1..=count {
            let id = rows.get(sequence).map(Row::webhook_id);
            let expected = (sequence % 100 == 0).then(|| sequence.to_string());
            assert_eq!(id, expected.as_deref());
        }
        assert!(rows.iter().all(|row| row.text.is_unique()));
        let room: usize = (rows.segments.values())
            .map(|segment| segment.rows.capacity())
            .sum();
        assert!(room < expected.len() * 2, "{room}");

        push(&mut rows, "next", b"body");
        assert_eq!(rows.get(count + 1).map(Row::webhook_id), Some("next"));
        rows.retain(|row| row.sequence > count);
        assert_eq!(sequences(&rows), [count + 1]);
        rows.retain(|_| false);
        assert!(rows.segments.is_empty());
        push(&mut rows, "last", b"body");
        assert_eq!(sequences(&rows), [count + 2]);
    }

    #[test]
    fn many_short_ones_that_stay_keep_no_memory_of_few_that_were_longer() {
        let mut rows = Rows::default();
        for number in 0..160 {
            let length = if number % 16 < 9 { 100 } else { 16_000 };
            push(&mut rows, &number.to_string(), &vec![b'x'; length]);
        }
        rows.retain(|row| row.text.len() < 1000);
        assert_eq!(rows.iter().count(), 90);
        assert!(rows.iter().all(|row| row.text.is_unique()));
    }

    #[test]
    fn what_is_in_somebody_s_hands_keeps_no_chunk() {
        let mut rows = Rows::default();
        push(&mut rows, "1", b"body");
        push(&mut rows, "2", &[b'x'; LONG]);
        let [short, long] = [1, 2].map(|sequence| rows.get(sequence).unwrap().message().body);
        assert!(short.is_unique());
        // That one isn't copied.
        assert!(!long.is_unique());
    }
}
