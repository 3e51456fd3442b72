//! Reads the three kinds of WebP: lossy, lossless, and the extended container around either.

use super::{Coding, Format, Found, cut_off, exif, le_u16, le_u32};
use crate::error::ImageError;
use crate::orientation::Orientation;

const FIRST_CHUNK: usize = 12;

pub(super) fn read(bytes: &[u8]) -> Result<Found, ImageError> {
    let cut = || cut_off(Format::WebP);
    let name = bytes.get(FIRST_CHUNK..).and_then(<[u8]>::first_chunk::<4>).ok_or_else(cut)?;
    let body = bytes.get(FIRST_CHUNK + 8..).ok_or_else(cut)?;
    let coding = |lossless| Coding::WebP { lossless, bytes: bytes.len() as u64 };
    match name {
        b"VP8 " => {
            if body.get(3..6) != Some(&[0x9d, 0x01, 0x2a]) {
                return Err(ImageError::corrupt(Format::WebP, "it does not begin with a key frame"));
            }
            let (width, height) = le_u16(body, 6).zip(le_u16(body, 8)).ok_or_else(cut)?;
            Ok(Found::plain((u32::from(width & 0x3fff), u32::from(height & 0x3fff)), coding(false)))
        }
        b"VP8L" => {
            let packed = le_u32(body, 1).ok_or_else(cut)?;
            Ok(Found::plain(((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1), coding(true)))
        }
        b"VP8X" => {
            let &[flags, _, _, _, w0, w1, w2, h0, h1, h2] = body.first_chunk().ok_or_else(cut)?;
            let orientation = match chunk(bytes, b"EXIF") {
                Some(block) if flags & 0x08 != 0 => exif::orientation(block),
                _ => Orientation::Upright,
            };
            let stored = (u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1);
            let lossless = chunk(bytes, b"VP8L").is_some() || flags & 0x02 != 0;
            Ok(Found { stored, orientation, coding: coding(lossless), has_profile: flags & 0x20 != 0 })
        }
        _ => Err(ImageError::corrupt(Format::WebP, "its first chunk is of no known kind")),
    }
}

/// The body of the first chunk of this name.
pub(crate) fn chunk<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    let mut rest = bytes.get(FIRST_CHUNK..)?;
    loop {
        let name = rest.first_chunk::<4>()?;
        let length = le_u32(rest, 4)? as usize;
        let body = rest.get(8..)?;
        if name == wanted {
            return body.get(..length);
        }
        // Bodies are padded to an even length.
        rest = body.get(length.checked_next_multiple_of(2)?..)?;
    }
}
