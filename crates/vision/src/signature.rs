//! Recognises a format by its first bytes: those that are read here, and those that are refused by name.
//!
//! Why: file names and media types lie, and "unsupported" helps nobody who does not know that the phone sent HEIC.

use crate::error::ImageError;
use crate::header::Format;

const SEND_JPEG: &str = "send it as JPEG or PNG";

/// The format of `bytes`.
pub(crate) fn recognise(bytes: &[u8]) -> Result<Format, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if let Some(format) = readable(bytes) {
        return Ok(format);
    }
    match refused(bytes) {
        Some((what, advice)) => Err(ImageError::unsupported(what, advice)),
        None => Err(ImageError::NotAnImage),
    }
}

fn readable(bytes: &[u8]) -> Option<Format> {
    let format = match bytes {
        [0xff, 0xd8, 0xff, ..] => Format::Jpeg,
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Format::Png,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Format::Gif,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::WebP,
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Format::Tiff,
        // Icon directory: reserved 0, type 1, at least one entry of which byte 9 is reserved and 0 in icons as they are made.
        [0, 0, 1, 0, low, high, ..] if (*low, *high) != (0, 0) => Format::Ico,
        // "BM" begins many texts; the size of the second header is one of seven.
        [b'B', b'M', ..] if matches!(bytes.get(14..18), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) => {
            Format::Bmp
        }
        _ => return None,
    };
    Some(format)
}

fn refused(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match bytes {
        [_, _, _, _, b'f', b't', b'y', b'p', rest @ ..] => return Some(boxed(rest)),
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => {
            return Some(("JPEG 2000", SEND_JPEG));
        }
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] | [0xff, 0x0a, ..] => return Some(("JPEG XL", SEND_JPEG)),
        [b'%', b'P', b'D', b'F', b'-', ..] => return Some(("PDF", "send the page as a picture, JPEG or PNG")),
        [b'8', b'B', b'P', b'S', ..] => return Some(("Photoshop PSD", "export it as JPEG or PNG")),
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => return Some(("BigTIFF", "save it as plain TIFF or PNG")),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => return Some(("a video", "send one frame as JPEG or PNG")),
        _ => {}
    }
    if bytes.get(128..132) == Some(b"DICM") {
        return Some(("DICOM", "export it as PNG"));
    }
    is_svg(bytes).then_some(("SVG", "draw it as PNG first"))
}

/// The brands after `ftyp` in the container that HEIC, AVIF and videos share.
fn boxed(brands: &[u8]) -> (&'static str, &'static str) {
    const PHONE: &str = "phones send HEIC: choose \"Most Compatible\" in the camera's format settings, or send JPEG";
    match brands.get(..4) {
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx") => ("HEIC", PHONE),
        Some(b"avif" | b"avis") => ("AVIF", SEND_JPEG),
        // A general HEIF brand: what is inside stands among the compatible brands.
        Some(b"mif1" | b"msf1" | b"miaf") => {
            let compatible = &brands[..brands.len().min(64)];
            if compatible.as_chunks::<4>().0.iter().any(|brand| brand == b"avif") {
                ("AVIF", SEND_JPEG)
            } else {
                ("HEIC", PHONE)
            }
        }
        _ => ("a video", "send one frame as JPEG or PNG"),
    }
}

fn is_svg(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let head = &text[..text.len().min(1024)];
    let is_markup = head.starts_with(b"<?xml") || head.starts_with(b"<!--") || head.starts_with(b"<!DOCTYPE svg");
    head.starts_with(b"<svg") || (is_markup && head.windows(4).any(|window| window == b"<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        recognise(bytes).expect_err("refused").to_string()
    }

    #[test]
    fn foreign_formats_are_refused_by_name() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
            (b"%PDF-1.7", "PDF"),
            (b"\xff\x0a\0\0", "JPEG XL"),
            (b"  <svg xmlns='x'>", "SVG"),
            (b"<?xml version='1.0'?><svg/>", "SVG"),
        ] {
            assert!(refusal(bytes).starts_with(name), "{}", refusal(bytes));
        }
        assert!(refusal(b"\0\0\0\x18ftypheic").contains("JPEG"), "the advice says how to send JPEG");
    }

    #[test]
    fn texts_and_archives_are_no_images() {
        for bytes in [
            &b"hello"[..],
            b"BMW is a car maker, I am told",
            b"<html><svg></svg>",
            b"PK\x03\x04",
            b"\xff\xd8",
            b"\0\0\x01\0\0\0",
        ] {
            assert_eq!(recognise(bytes), Err(ImageError::NotAnImage));
        }
        assert_eq!(recognise(b""), Err(ImageError::Empty));
    }
}
