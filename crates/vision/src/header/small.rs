//! The formats whose header is a few fixed fields: GIF, BMP, ICO.

use super::{Coding, Format, Found, be_u32, cut_off, le_u16, le_u32};
use crate::error::ImageError;

pub(super) fn read_gif(bytes: &[u8]) -> Result<Found, ImageError> {
    let (width, height) = le_u16(bytes, 6).zip(le_u16(bytes, 8)).ok_or_else(|| cut_off(Format::Gif))?;
    Ok(Found::plain((u32::from(width), u32::from(height)), Coding::Gif))
}

pub(super) fn read_bmp(bytes: &[u8]) -> Result<Found, ImageError> {
    let cut = || cut_off(Format::Bmp);
    let stored = if le_u32(bytes, 14) == Some(12) {
        let (width, height) = le_u16(bytes, 18).zip(le_u16(bytes, 20)).ok_or_else(cut)?;
        (u32::from(width), u32::from(height))
    } else {
        let (width, height) = le_u32(bytes, 18).zip(le_u32(bytes, 22)).ok_or_else(cut)?;
        let (width, height) = (width.cast_signed(), height.cast_signed());
        if width < 0 {
            return Err(ImageError::corrupt(Format::Bmp, format!("it claims to be {width} px wide")));
        }
        // A negative height says that rows are stored from the top.
        (width.cast_unsigned(), height.unsigned_abs())
    };
    Ok(Found::plain(stored, Coding::Bmp))
}

/// The best entry of an icon: the deepest, then the largest. `(width, height, offset)`.
///
/// The same choice as the decoder's (the last entry, or else the first that beats it), so that both mean the same entry.
fn icon_entry(bytes: &[u8]) -> Option<(u32, u32, usize)> {
    let count = usize::from(le_u16(bytes, 4)?);
    let entries = bytes.get(6..)?.as_chunks::<16>().0;
    let (last, others) = entries.get(..count)?.split_last()?;
    let edge = |edge: u8| if edge == 0 { 256 } else { u32::from(edge) };
    let score = |entry: &[u8; 16]| (u16::from_le_bytes([entry[6], entry[7]]), edge(entry[0]) * edge(entry[1]));
    let best = others.iter().fold(last, |best, entry| if score(entry) > score(best) { entry } else { best });
    let offset = u32::from_le_bytes([best[12], best[13], best[14], best[15]]);
    Some((edge(best[0]), edge(best[1]), offset as usize))
}

pub(super) fn read_ico(bytes: &[u8]) -> Result<Found, ImageError> {
    let (width, height, offset) = icon_entry(bytes).ok_or_else(|| cut_off(Format::Ico))?;
    let picture = bytes.get(offset..).ok_or_else(|| cut_off(Format::Ico))?;
    let png = picture.starts_with(b"\x89PNG\r\n\x1a\n");
    let stored = if png {
        be_u32(picture, 16).zip(be_u32(picture, 20)).ok_or_else(|| cut_off(Format::Ico))?
    } else {
        (width, height)
    };
    Ok(Found::plain(stored, Coding::Ico { offset, png }))
}
