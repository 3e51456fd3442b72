//! Reads the three kinds of WebP: lossy, lossless, and the extended container around either.

use super::{Coding, Format, Found, code_tables, cut_off, exif, le_u16, le_u32};
use crate::error::ImageError;
use crate::orientation::Orientation;

const FIRST_CHUNK: usize = 12;

pub(super) fn read(bytes: &[u8]) -> Result<Found, ImageError> {
    let cut = || cut_off(Format::WebP);
    let name = bytes.get(FIRST_CHUNK..).and_then(<[u8]>::first_chunk::<4>).ok_or_else(cut)?;
    let body = bytes.get(FIRST_CHUNK + 8..).ok_or_else(cut)?;
    let coding = |lossless, size| {
        let table_bytes = if lossless_streams(bytes, size).next().is_some() {
            code_tables::limit(size, bytes.len() as u64)
        } else {
            0
        };
        Coding::WebP { lossless, bytes: bytes.len() as u64, table_bytes }
    };
    match name {
        b"VP8 " => {
            if body.get(3..6) != Some(&[0x9d, 0x01, 0x2a]) {
                return Err(ImageError::corrupt(Format::WebP, "it does not begin with a key frame"));
            }
            let stored = lossy_size(body).ok_or_else(cut)?;
            Ok(Found::plain(stored, coding(false, stored)))
        }
        b"VP8L" => {
            let stored = lossless_size(body).ok_or_else(cut)?;
            Ok(Found::plain(stored, coding(true, stored)))
        }
        b"VP8X" => {
            let &[flags, _, _, _, w0, w1, w2, h0, h1, h2] = body.first_chunk().ok_or_else(cut)?;
            let orientation = match chunk(bytes, b"EXIF") {
                Some(block) if flags & 0x08 != 0 => exif::orientation(block),
                _ => Orientation::Upright,
            };
            let stored = (u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1);
            check_frames(bytes, stored)?;
            let lossless = chunk(bytes, b"VP8L").is_some() || flags & 0x02 != 0;
            Ok(Found { stored, orientation, coding: coding(lossless, stored), has_profile: flags & 0x20 != 0 })
        }
        _ => Err(ImageError::corrupt(Format::WebP, "its first chunk is of no known kind")),
    }
}

/// Width and height of a lossy bitstream.
fn lossy_size(body: &[u8]) -> Option<(u32, u32)> {
    let (width, height) = le_u16(body, 6).zip(le_u16(body, 8))?;
    Some((u32::from(width & 0x3fff), u32::from(height & 0x3fff)))
}

/// Width and height of a lossless bitstream.
fn lossless_size(body: &[u8]) -> Option<(u32, u32)> {
    let packed = le_u32(body, 1)?;
    Some(((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1))
}

/// The lossless bitstreams that make the first picture, from their transforms on, and their sizes: its colours, or its alpha.
pub(super) fn lossless_streams(bytes: &[u8], canvas: (u32, u32)) -> impl Iterator<Item = (&[u8], (u32, u32))> {
    let frame = chunk(bytes, b"ANMF").and_then(|frame| {
        let &[w0, w1, w2, h0, h1, h2] = frame.get(6..)?.first_chunk()?;
        let size = (u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1);
        let (name, body) = chunks(frame.get(16..)?).next()?;
        Some((name, body, size))
    });
    let still = [b"VP8L", b"ALPH"].map(|name| chunk(bytes, name).map(|body| (name, body, canvas)));
    still.into_iter().chain([frame]).flatten().filter_map(|(name, body, size)| match name {
        b"VP8L" => Some((body.get(5..)?, lossless_size(body)?)),
        // Its lowest two bits say whether alpha is compressed.
        b"ALPH" if body.first()? & 3 == 1 => Some((&body[1..], size)),
        _ => None,
    })
}

/// Refuses a lossy frame larger than the canvas. The decoder would find that out, too, but only after having allocated up to
/// 400 MB for a frame of a few bytes; lossless frames it compares first.
fn check_frames(bytes: &[u8], canvas: (u32, u32)) -> Result<(), ImageError> {
    // An animation's frame is 16 bytes of place and duration, then chunks of its own.
    let inside = |(name, body): (&[u8; 4], &[u8])| match name {
        b"ANMF" => chunks(body.get(16..).unwrap_or_default()).any(|chunk| is_larger(chunk, canvas)),
        _ => is_larger((name, body), canvas),
    };
    if chunks(bytes.get(FIRST_CHUNK..).unwrap_or_default()).any(inside) {
        return Err(ImageError::corrupt(Format::WebP, "a frame is larger than its canvas"));
    }
    Ok(())
}

fn is_larger((name, body): (&[u8; 4], &[u8]), canvas: (u32, u32)) -> bool {
    name == b"VP8 " && lossy_size(body).is_some_and(|(width, height)| width > canvas.0 || height > canvas.1)
}

/// The chunks at the start of `bytes`, name and body; the last body may be cut off.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let name = rest.first_chunk::<4>()?;
        let length = le_u32(rest, 4)? as usize;
        let body = rest.get(8..)?;
        // Bodies are padded to an even length.
        let padded = length.checked_next_multiple_of(2).and_then(|padded| body.get(padded..));
        rest = padded.unwrap_or_default();
        Some((name, &body[..length.min(body.len())]))
    })
}

/// The body of the first chunk of this name.
pub(crate) fn chunk<'a>(bytes: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    chunks(bytes.get(FIRST_CHUNK..)?).find(|(name, _)| *name == wanted).map(|(_, body)| body)
}
