//! Flushes everything that is stored, also after a failed flush.
//!
//! After the operating system failed to flush a file, it may treat the unwritten pages as written
//! (Linux does). A later flush then succeeds without them, and they are lost when the power is cut.
//! So the log is read back, compared with its checksums, and written again. So are the pages that
//! were copied from it into the database: SQLite does not copy them twice.

use core::time::Duration;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::file::{BUSY_TIMEOUT, open_private};
use crate::inbox::message::to_u64;
use crate::telemetry;

/// The number of tries. Each open file reports a failed flush once, also if another one has reported
/// it: the log and the database, of this module and of SQLite.
const TRIES: usize = 3;

/// The lengths of the headers of the log and of each page in it, in bytes
/// (<https://www.sqlite.org/fileformat2.html#walformat>).
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Flushes everything that is stored. Then copies the log into the database and empties it, if that
/// is possible. Returns `false` if a transaction of another process prevents the flush.
///
/// No other thread of this process may run a checkpoint meanwhile.
pub(super) fn flush(
    connection: &Connection,
    log: &Path,
    database: &File,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let mut tries = 1..TRIES;
    let is_flushed = loop {
        match try_flush(connection, log, database) {
            Err(_) if tries.next().is_some() => {}
            flushed => break flushed?,
        }
    };
    if is_flushed {
        // Everything is on the disk, in the log or in the database. So it can fail.
        let mut copied = copy_log(connection);
        for _ in 1..TRIES {
            copied = copied.or_else(|_| copy_log(connection));
        }
        if let Err(error) = copied {
            telemetry::checkpoint_failed(&error);
        }
    }
    Ok(is_flushed)
}

/// Copies the log into the database and empties it, unless a reader prevents that.
fn copy_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let copied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    copied
}

fn try_flush(
    connection: &Connection,
    log: &Path,
    database: &File,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let progress = Progress::read(connection)?;
    // Other processes must not append to the log meanwhile.
    match connection.execute_batch("BEGIN IMMEDIATE") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            return Ok(false);
        }
        begun => begun?,
    }
    let log = open_private(&mut OpenOptions::new(), log);
    let rewritten = log.and_then(|log| rewrite(&log, database, progress));
    connection.execute_batch("COMMIT")?;
    rewritten?;
    if Progress::read(connection)?.copied != progress.copied {
        return Err("another process copied the log at the same time".into());
    }
    Ok(true)
}

/// The progress of the log, in pages.
#[derive(Clone, Copy)]
struct Progress {
    len: u64,
    /// The pages that were copied into the database.
    copied: u64,
}

impl Progress {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            Ok(Self {
                len: row.get(1)?,
                copied: row.get(2)?,
            })
        })
    }
}

/// Writes the log and the pages that were copied from it again, and flushes them.
fn rewrite(log: &File, database: &File, progress: Progress) -> io::Result<()> {
    let mut copied = BTreeMap::new();
    if progress.len > 0 {
        let mut header = [0; LOG_HEADER];
        read_at(log, 0, &mut header)?;
        let mut checksum = Checksum::new(number(&header, 0));
        checksum.add(&header[..24]);
        let page_len = number(&header, 8);
        if checksum.bytes() != header[24..32] || !(512..=65536).contains(&page_len) {
            return Err(damaged());
        }
        write_at(log, 0, &header)?;
        let page_len = usize::try_from(page_len).map_err(io::Error::other)?;
        let mut frame = vec![0; FRAME_HEADER + page_len];
        let mut at = to_u64(LOG_HEADER);
        for index in 0..progress.len {
            read_at(log, at, &mut frame)?;
            checksum.add(&frame[..8]);
            checksum.add(&frame[FRAME_HEADER..]);
            let is_intact = frame[8..16] == header[16..24] && checksum.bytes() == frame[16..24];
            if !is_intact {
                return Err(damaged());
            }
            write_at(log, at, &frame)?;
            if index < progress.copied {
                let page = u64::from(number(&frame, 0));
                copied.insert(page.saturating_sub(1) * to_u64(page_len), at);
            }
            at += to_u64(frame.len());
        }
        log.sync_all()?;
        let len = database.metadata()?.len();
        for (to, from) in copied.range(..len) {
            read_at(log, *from, &mut frame)?;
            write_at(database, *to, &frame[FRAME_HEADER..])?;
        }
    }
    database.sync_all()
}

/// The checksum of a log: two sums over 32-bit words, which continue from frame to frame.
struct Checksum {
    sums: [u32; 2],
    word: fn([u8; 4]) -> u32,
}

impl Checksum {
    /// The first number of the log says in which order the bytes of a word are.
    fn new(magic: u32) -> Self {
        let is_big_endian = magic & 1 == 1;
        Self {
            sums: [0; 2],
            word: if is_big_endian {
                u32::from_be_bytes
            } else {
                u32::from_le_bytes
            },
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let [mut first, mut second] = self.sums;
        let (words, _) = bytes.as_chunks::<4>();
        let (pairs, _) = words.as_chunks::<2>();
        for [even, odd] in pairs {
            first = first.wrapping_add((self.word)(*even)).wrapping_add(second);
            second = second.wrapping_add((self.word)(*odd)).wrapping_add(first);
        }
        self.sums = [first, second];
    }

    /// Returns the checksum as it is stored.
    fn bytes(&self) -> Vec<u8> {
        self.sums.map(u32::to_be_bytes).concat()
    }
}

fn damaged() -> io::Error {
    let text = "the log cannot be read back: its checksums differ; restart the receiver";
    io::Error::new(ErrorKind::InvalidData, text)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let number = bytes[at..].first_chunk().copied();
    number.map(u32::from_be_bytes).unwrap_or_default()
}

fn read_at(mut file: &File, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(bytes)
}

fn write_at(mut file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}
