//! Inputs are text: a line for each small thing, and the rest for the body.
//!
//! A fuzzer's mutations then mostly change one thing at a time, and a seed can be read.

use crate::reference;

/// Takes the next line off an input; empty where there is none left.
///
/// No line can hold a line break, so byte 1 stands for one.
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

/// The value of a header: `None` where the line is a single `-`.
pub fn header(input: &mut &[u8]) -> Option<Vec<u8>> {
    Some(line(input)).filter(|value| value != b"-")
}

/// A number in decimal; anything else is taken as the digits of a number to base 257, so that every
/// mutation gives some number.
pub fn number(text: &[u8]) -> u64 {
    reference::decimal(text).unwrap_or_else(|| {
        text.iter().fold(0, |number: u64, byte| {
            number.wrapping_mul(257).wrapping_add(u64::from(*byte))
        })
    })
}

/// Numbers parted by spaces.
pub fn numbers(text: &[u8]) -> Vec<u64> {
    text.split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        .map(number)
        .collect()
}

/// A number as an index below `len`, which isn't 0.
pub fn index(number: u64, len: usize) -> usize {
    let len = u64::try_from(len).expect("a length fits 64 bits");
    usize::try_from(number % len).expect("less than a length")
}

/// The bytes of a key: those of a secret as the sender shows it, else something of a valid length
/// made of whatever stands there.
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

/// One to four keys, parted by spaces.
pub fn keys(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| *byte == b' ').take(4).map(key).collect()
}
