//! One file of the spool: entries one after the other, each with its length and a checksum.
//!
//! An entry is `length`, `checksum` (CRC-32 of what follows), and then three lengths (record, picture, preview) and their
//! bytes; numbers are 32 bits, little-endian. A file that was cut in the middle of a write ends with an entry that is not
//! whole: it was never acknowledged.

use std::fs::File;
use std::io::{BufReader, Read as _, Result, Seek as _, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use crc32fast::Hasher;

use crate::record::Record;

/// The beginning of every file, with the version of its form.
pub(super) const MAGIC: &[u8; 8] = b"OBSPOOL1";
/// Before each entry: its length and checksum.
const HEAD: usize = 8;
/// The three lengths.
const LENGTHS: usize = 12;
/// No entry is longer: a length beyond it is no length.
const LONGEST: usize = 1 << 30;

/// A record with its pictures, on its way into the stores.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What is known of it.
    pub record: Record,
    /// As it was sent.
    pub picture: Option<Bytes>,
    /// A small JPEG of it.
    pub preview: Option<Bytes>,
}

impl Entry {
    /// Memory that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        part(&self.picture) + part(&self.preview) + 2_048
    }

    /// Appends it; how many bytes that were.
    pub(super) fn write(&self, out: &mut impl Write) -> Result<u64> {
        let record = serde_json::to_vec(&self.record).expect("texts and numbers are always JSON");
        let none = Bytes::new();
        let (picture, preview) = (self.picture.as_ref().unwrap_or(&none), self.preview.as_ref().unwrap_or(&none));
        let parts: [&[u8]; 3] = [&record, picture, preview];
        let mut lengths = [0; LENGTHS];
        for (place, part) in lengths.chunks_exact_mut(4).zip(parts) {
            let length = u32::try_from(part.len()).map_err(std::io::Error::other)?;
            place.copy_from_slice(&length.to_le_bytes());
        }
        let mut checksum = Hasher::new();
        checksum.update(&lengths);
        parts.iter().for_each(|part| checksum.update(part));
        let length = LENGTHS + parts.iter().map(|part| part.len()).sum::<usize>();
        if length > LONGEST {
            return Err(std::io::Error::other(format!("an entry of {length} bytes, the limit is {LONGEST}")));
        }
        out.write_all(&(length as u32).to_le_bytes())?;
        out.write_all(&checksum.finalize().to_le_bytes())?;
        out.write_all(&lengths)?;
        parts.iter().try_for_each(|part| out.write_all(part))?;
        Ok((HEAD + length) as u64)
    }
}

/// What stands at a place of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// An entry.
    Entry(Box<Entry>),
    /// Something that was written, but is not what was written. Reading goes on behind it, where that can be known.
    Damaged,
    /// The file ends here, or in the middle of an entry.
    End,
}

/// Reads entries one after the other.
pub(super) struct Reader {
    file: BufReader<File>,
    pub(super) at: u64,
    end: u64,
    /// Its beginning is another's.
    foreign: bool,
}

impl Reader {
    /// Reads from `at`, 0 being the beginning, to `end` at most.
    pub(super) fn open(path: &Path, at: u64, end: u64) -> Result<Self> {
        let mut file = File::open(path)?;
        let end = end.min(file.metadata()?.len());
        // It may have become shorter.
        let (mut at, mut foreign) = (at.min(end), false);
        if at == 0 {
            let mut magic = [0; MAGIC.len()];
            // A file without even its beginning has no entry.
            if end < MAGIC.len() as u64 {
                at = end;
            } else {
                file.read_exact(&mut magic)?;
                // Zeros are a block that never reached the disk, and then nothing in the file was acknowledged.
                foreign = &magic != MAGIC && magic != [0; MAGIC.len()];
                at = MAGIC.len() as u64;
            }
        }
        file.seek(SeekFrom::Start(at))?;
        Ok(Self { file: BufReader::with_capacity(256 << 10, file), at, end, foreign })
    }

    pub(super) fn next(&mut self) -> Result<Found> {
        if self.foreign {
            (self.foreign, self.at) = (false, self.end);
            return Ok(Found::Damaged);
        }
        let left = (self.end - self.at) as usize;
        if left < HEAD + LENGTHS {
            return Ok(Found::End);
        }
        let mut head = [0; HEAD + LENGTHS];
        self.file.read_exact(&mut head)?;
        let (length, checksum) = (number(&head), number(&head[4..]) as u32);
        let lengths = &head[HEAD..];
        // How long an entry is stands in it twice, so that damage to one of them hides nothing behind it.
        let sum = LENGTHS + lengths.chunks_exact(4).map(number).sum::<usize>();
        let fits = |length: usize| (LENGTHS..=LONGEST).contains(&length) && length <= left - HEAD;
        if length == sum && !fits(length) {
            return Ok(Found::End);
        }
        // Blocks that never reached the disk are zeros.
        if length == 0 && sum == LENGTHS {
            return Ok(Found::End);
        }
        let begin = self.at;
        if fits(sum) {
            let mut body = vec![0; sum];
            body[..LENGTHS].copy_from_slice(lengths);
            self.file.read_exact(&mut body[LENGTHS..])?;
            self.at = begin + (HEAD + sum) as u64;
            if crc32fast::hash(&body) == checksum {
                return Ok(entry(Bytes::from(body)));
            }
            if length == sum {
                return Ok(Found::Damaged);
            }
        }
        // The lengths are damaged, or nearly everything is.
        self.at = if fits(length) { begin + (HEAD + length) as u64 } else { self.end };
        self.file.seek(SeekFrom::Start(self.at))?;
        Ok(Found::Damaged)
    }
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

/// What a body says whose checksum is right.
fn entry(body: Bytes) -> Found {
    let mut parts = [Bytes::new(), Bytes::new(), Bytes::new()];
    let mut from = LENGTHS;
    for (place, part) in parts.iter_mut().enumerate() {
        let to = from + number(&body[4 * place..]);
        *part = body.slice(from..to);
        from = to;
    }
    let [record, picture, preview] = parts;
    let some = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
    match serde_json::from_slice(&record) {
        Ok(record) => Found::Entry(Box::new(Entry { record, picture: some(picture), preview: some(preview) })),
        Err(_) => Found::Damaged,
    }
}
