//! Walks the first directory of a TIFF structure, which is also what EXIF is.

use super::{be_u16, be_u32, le_u16, le_u32};
use crate::orientation::Orientation;

pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
pub(super) const BITS_PER_SAMPLE: u16 = 258;
pub(super) const ORIENTATION: u16 = 274;
pub(super) const SAMPLES_PER_PIXEL: u16 = 277;
pub(super) const PROFILE: u16 = 34_675;

/// The first directory. Offsets count from the start of `bytes`.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    start: usize,
    entries: usize,
}

impl<'a> Directory<'a> {
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.first_chunk()? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let mut directory = Self { bytes, big_endian, start: 0, entries: 0 };
        let start = directory.u32(4)? as usize;
        directory.entries = usize::from(directory.u16(start)?);
        directory.start = start + 2;
        Some(directory)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        if self.big_endian { be_u16(self.bytes, at) } else { le_u16(self.bytes, at) }
    }

    fn u32(&self, at: usize) -> Option<u32> {
        if self.big_endian { be_u32(self.bytes, at) } else { le_u32(self.bytes, at) }
    }

    /// Where the entry of `tag` begins.
    fn entry(&self, tag: u16) -> Option<usize> {
        (0..self.entries).map(|index| self.start + 12 * index).find(|&at| self.u16(at) == Some(tag))
    }

    /// The first value of `tag`, when it is a BYTE, SHORT or LONG.
    pub(super) fn number(&self, tag: u16) -> Option<u32> {
        let at = self.entry(tag)?;
        let (kind, count) = (self.u16(at + 2)?, self.u32(at + 4)?);
        let size = match kind {
            1 => 1,
            3 => 2,
            4 => 4,
            _ => return None,
        };
        let place = match u64::from(count) * size {
            0 => return None,
            1..=4 => at + 8,
            _ => self.u32(at + 8)? as usize,
        };
        match kind {
            1 => self.bytes.get(place).map(|&value| u32::from(value)),
            3 => self.u16(place).map(u32::from),
            _ => self.u32(place),
        }
    }

    /// The bytes of `tag`, when it is BYTE or UNDEFINED and more than fits the entry.
    pub(super) fn block(&self, tag: u16) -> Option<&'a [u8]> {
        let at = self.entry(tag)?;
        let (kind, count) = (self.u16(at + 2)?, self.u32(at + 4)? as usize);
        if !matches!(kind, 1 | 7) || count <= 4 {
            return None;
        }
        let place = self.u32(at + 8)? as usize;
        self.bytes.get(place..)?.get(..count)
    }

    /// What a reader needs that loads all values: twice the bytes of texts and blocks, 16 times those of numbers (it keeps
    /// each in a variant type). `None` when a value claims to lie outside the file.
    pub(super) fn reading_bytes(&self) -> Option<u64> {
        let mut needed: u64 = 0;
        for at in (0..self.entries).map(|index| self.start + 12 * index) {
            let (kind, count) = (self.u16(at + 2)?, u64::from(self.u32(at + 4)?));
            let (size, weight) = match kind {
                1 | 2 | 6 | 7 => (1, 2),
                3 | 8 => (2, 16),
                4 | 9 | 11 | 13 => (4, 16),
                5 | 10 | 12 | 16..=18 => (8, 16),
                // Readers skip kinds that they do not know.
                _ => continue,
            };
            let bytes = count * size;
            let place = if bytes <= 4 { 0 } else { u64::from(self.u32(at + 8)?) };
            if place + bytes > self.bytes.len() as u64 {
                return None;
            }
            needed += bytes * weight;
        }
        Some(needed)
    }

    pub(super) fn orientation(&self) -> Orientation {
        self.number(ORIENTATION).map(Orientation::from_exif).unwrap_or_default()
    }
}

/// The orientation in an EXIF block, with or without the `Exif\0\0` that some writers put before it.
pub(super) fn orientation(block: &[u8]) -> Orientation {
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    Directory::first(block).map(|directory| directory.orientation()).unwrap_or_default()
}
