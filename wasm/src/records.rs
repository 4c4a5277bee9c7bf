//! Lists in the memory: each record is a byte with its kind, four with its length (little endian), and
//! its bytes.

const HEADERS: [&str; 6] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
];

/// Returns the header that a kind stands for.
pub(crate) fn header_name(kind: u8) -> Option<&'static str> {
    HEADERS.get(usize::from(kind)).copied()
}

/// Iterates over records: their kinds and bytes. Ends before a record that is incomplete.
pub(crate) struct Records<'m> {
    rest: &'m [u8],
}

impl<'m> Records<'m> {
    pub(crate) const fn new(bytes: &'m [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'m> Iterator for Records<'m> {
    type Item = (u8, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.rest.split_first()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (bytes, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some((*kind, bytes))
    }
}
