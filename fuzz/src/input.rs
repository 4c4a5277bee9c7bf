//! The input format: text with one line per value, then the body.
//!
//! Most mutations then change one value, and a seed is readable.

use pleo_webhook_verify::SignatureHeaders;

use crate::reference;

/// Takes the next line from an input; empty at its end.
///
/// Byte 1 stands for a line break, which a line cannot contain.
pub fn line(input: &mut &[u8]) -> Vec<u8> {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (line, rest) = match end {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (*input, &[][..]),
    };
    *input = rest;
    line.iter()
        .map(|byte| if *byte == 1 { b'\n' } else { *byte })
        .collect()
}

/// Takes the value of a header; `None` if the line is `-`.
pub fn header(input: &mut &[u8]) -> Option<Vec<u8>> {
    Some(line(input)).filter(|value| value != b"-")
}

/// Parses a decimal number. Other text is the digits of a number to base 257, so that every mutation
/// is a number.
pub fn number(text: &[u8]) -> u64 {
    reference::decimal(text).unwrap_or_else(|| {
        text.iter().fold(0, |number: u64, byte| {
            number.wrapping_mul(257).wrapping_add(u64::from(*byte))
        })
    })
}

/// Parses numbers separated by spaces.
pub fn numbers(text: &[u8]) -> Vec<u64> {
    text.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .map(number)
        .collect()
}

/// Maps a number to an index below `len`, which must not be 0.
pub fn index(number: u64, len: usize) -> usize {
    let len = u64::try_from(len).expect("a length fits 64 bits");
    usize::try_from(number % len).expect("less than a length")
}

/// Parses a secret into its key. Other text is cut or filled up to a key of valid length.
pub fn key(text: &[u8]) -> Vec<u8> {
    if let Ok(key) = reference::secret(text) {
        return key;
    }
    let len = text.len().clamp(24, 75);
    text.iter()
        .copied()
        .chain((0..).map(|byte: u8| byte.wrapping_mul(7)))
        .take(len)
        .collect()
}

/// Parses one to four keys, separated by spaces.
pub fn keys(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| *byte == b' ').take(4).map(key).collect()
}

/// Makes headers of id, timestamp and signature list, of which some may be missing.
pub fn headers(values: [Option<&[u8]>; 3]) -> SignatureHeaders<'_> {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let pairs = names.into_iter().zip(values);
    SignatureHeaders::from_pairs(pairs.filter_map(|(name, value)| Some((name, value?))))
        .expect("no header is duplicated")
}
