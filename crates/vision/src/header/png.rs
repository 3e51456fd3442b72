//! Walks the chunks of a PNG up to its data. Checksums are left to the decoder.

use super::{Coding, Format, Found, be_u32, cut_off, exif};
use crate::error::ImageError;
use crate::orientation::Orientation;

const SIGNATURE_BYTES: usize = 8;

pub(super) fn read(bytes: &[u8]) -> Result<Found, ImageError> {
    let start = bytes.get(SIGNATURE_BYTES..).ok_or_else(|| cut_off(Format::Png))?;
    let Some((b"IHDR", header)) = chunk(start) else {
        return Err(cut_off(Format::Png));
    };
    let (Some(width), Some(height), Some(&[depth, colour])) =
        (be_u32(header, 0), be_u32(header, 4), header.get(8..10).and_then(<[u8]>::first_chunk))
    else {
        return Err(cut_off(Format::Png));
    };
    let mut orientation = Orientation::Upright;
    let (mut has_profile, mut has_clear_colour) = (false, false);
    let mut rest = &start[12 + header.len()..];
    while let Some((name, body)) = chunk(rest) {
        match name {
            b"IDAT" | b"IEND" => break,
            b"eXIf" => orientation = exif::orientation(body),
            b"iCCP" => has_profile = true,
            b"tRNS" => has_clear_colour = true,
            _ => {}
        }
        rest = &rest[12 + body.len()..];
    }
    let samples = match colour {
        0 => 1,
        2 => 3,
        3 => 3,
        4 => 2,
        6 => 4,
        _ => return Err(ImageError::corrupt(Format::Png, format!("colour type {colour} does not exist"))),
    };
    let samples = samples + u64::from(has_clear_colour);
    let pixel_bytes = if depth == 16 { samples * 2 } else { samples };
    let coding = Coding::Png { pixel_bytes, gray_alpha: colour == 4 || colour == 0 && has_clear_colour };
    Ok(Found { stored: (width, height), orientation, coding, has_profile })
}

/// The chunk at the start of `bytes`, if it is all there with its checksum: name and body.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8])> {
    let length = be_u32(bytes, 0)? as usize;
    let name = bytes.get(4..)?.first_chunk()?;
    let body = bytes.get(8..)?.get(..length)?;
    // The checksum, too.
    bytes.get(8 + length..)?.first_chunk::<4>()?;
    Some((name, body))
}
