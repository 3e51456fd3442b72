//! Walks the markers of a JPEG up to its first scan.

use super::{Coding, Format, Found, Limits, be_u16, cut_off, exif};
use crate::error::ImageError;
use crate::orientation::Orientation;

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;
const PROFILE_NAME: &[u8] = b"ICC_PROFILE\0";

/// Profiles above this are ignored: the largest in use (ink profiles) are under 3 MB.
const MAX_PROFILE: usize = 4 << 20;

/// What a frame header tells of the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JpegHeader {
    width: u32,
    height: u32,
    pub(crate) components: u8,
    /// Lossless coding cannot be scaled while decoding.
    pub(crate) lossless: bool,
    /// An Adobe marker is present: ink colours are stored inverted.
    pub(crate) adobe: bool,
    /// Samples for each 64 pixels, all components together.
    samples_per_64: u32,
    /// Progressive, or several scans: all coefficients of the picture are kept until the end.
    buffered: bool,
    /// Where the first scan's entropy-coded data begins.
    scan: usize,
}

impl JpegHeader {
    pub(crate) fn is_ink(&self) -> bool {
        self.components == 4
    }

    /// Two bytes for each coefficient of the full picture, when they have to be kept.
    pub(crate) fn coefficient_bytes(&self) -> u64 {
        if !self.buffered {
            return 0;
        }
        // Rounded up to whole units of 32x32 pixels, the largest that sampling factors make.
        let padded = u64::from(self.width.next_multiple_of(32)) * u64::from(self.height.next_multiple_of(32));
        padded * u64::from(self.samples_per_64) / 64 * 2
    }
}

/// One marker segment: its code and what follows the length.
struct Segment<'a> {
    code: u8,
    body: &'a [u8],
    /// Where the next marker is expected.
    end: usize,
}

/// The segment that starts at or after `at`; bytes between segments are skipped, as decoders do.
fn segment(bytes: &[u8], at: usize) -> Option<Segment<'_>> {
    let mut at = at;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        let code = bytes[at];
        at += 1;
        match code {
            // Stuffing, and markers that stand alone.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            END_OF_IMAGE => return Some(Segment { code, body: &[], end: at }),
            _ => {
                let length = usize::from(be_u16(bytes, at)?);
                let body = bytes.get(at + 2..at + length.max(2))?;
                return Some(Segment { code, body, end: at + length.max(2) });
            }
        }
    }
}

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Found, ImageError> {
    let mut frame: Option<JpegHeader> = None;
    let mut orientation = Orientation::Upright;
    let (mut has_profile, mut adobe) = (false, false);
    let mut at = 2;
    loop {
        let Some(segment) = segment(bytes, at) else {
            // A claim over the limits is told as such even where nothing follows it.
            if let Some(frame) = frame {
                limits.check_size((frame.width, frame.height))?;
            }
            return Err(cut_off(Format::Jpeg));
        };
        at = segment.end;
        match segment.code {
            0xc0..=0xcf if !matches!(segment.code, 0xc4 | 0xc8 | 0xcc) && frame.is_none() => {
                frame = Some(read_frame(segment.code, segment.body)?);
            }
            APP1 if segment.body.starts_with(b"Exif\0\0") => orientation = exif::orientation(segment.body),
            APP2 => has_profile |= segment.body.starts_with(PROFILE_NAME),
            APP14 => adobe |= segment.body.starts_with(b"Adobe"),
            END_OF_IMAGE => return Err(ImageError::corrupt(Format::Jpeg, "it has no picture data")),
            START_OF_SCAN => {
                let frame = frame.ok_or_else(|| ImageError::corrupt(Format::Jpeg, "its data comes before its size"))?;
                let in_scan = segment.body.first().copied().unwrap_or_default();
                let buffered = frame.buffered || in_scan < frame.components;
                let jpeg = JpegHeader { adobe, buffered, scan: at, ..frame };
                let stored = (jpeg.width, jpeg.height);
                return Ok(Found { stored, orientation, coding: Coding::Jpeg(jpeg), has_profile });
            }
            _ => {}
        }
    }
}

fn read_frame(code: u8, body: &[u8]) -> Result<JpegHeader, ImageError> {
    const ADVICE: &str = "save it as ordinary 8-bit JPEG";
    let &[precision, height_high, height_low, width_high, width_low, components, ..] = body else {
        return Err(cut_off(Format::Jpeg));
    };
    if matches!(code, 0xc5..=0xc7 | 0xcb | 0xcd..=0xcf) {
        return Err(ImageError::unsupported(format!("JPEG with coding process {}", code & 0x0f), ADVICE));
    }
    if precision != 8 {
        return Err(ImageError::unsupported(format!("JPEG with {precision} bits a sample"), ADVICE));
    }
    if !matches!(components, 1 | 3 | 4) {
        return Err(ImageError::unsupported(format!("JPEG with {components} components"), ADVICE));
    }
    let samplings =
        body[6..].as_chunks::<3>().0.iter().map(|&[_, factors, _]| (u32::from(factors >> 4), u32::from(factors & 15)));
    let (mut most_x, mut most_y, mut units) = (1, 1, 0);
    let mut seen = 0;
    for (x, y) in samplings.take(usize::from(components)) {
        if !(1..=4).contains(&x) || !(1..=4).contains(&y) {
            return Err(ImageError::corrupt(Format::Jpeg, format!("sampling factors {x}x{y} do not exist")));
        }
        (most_x, most_y, units) = (most_x.max(x), most_y.max(y), units + x * y);
        seen += 1;
    }
    if seen < components {
        return Err(cut_off(Format::Jpeg));
    }
    Ok(JpegHeader {
        width: u32::from(u16::from_be_bytes([width_high, width_low])),
        height: u32::from(u16::from_be_bytes([height_high, height_low])),
        components,
        lossless: code == 0xc3,
        adobe: false,
        samples_per_64: (units * 64).div_ceil(most_x * most_y),
        buffered: matches!(code, 0xc2 | 0xca),
        scan: 0,
    })
}

/// Whether an end marker follows the data. Inside entropy-coded data these two bytes mean nothing else, so without them the
/// picture was cut off.
pub(crate) fn ends(bytes: &[u8], header: &JpegHeader) -> bool {
    bytes.get(header.scan..).is_some_and(|data| data.windows(2).any(|pair| pair == [0xff, END_OF_IMAGE]))
}

/// The ICC profile, put together from its pieces; `None` when a piece is missing.
pub(crate) fn profile(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut profile = Vec::new();
    let (mut at, mut next) = (2, 1);
    // Pieces are numbered from 1, and every writer stores them in order.
    while let Some(segment) = segment(bytes, at) {
        at = segment.end;
        if segment.code == START_OF_SCAN || segment.code == END_OF_IMAGE {
            return None;
        }
        let Some([number, of, piece @ ..]) =
            (segment.code == APP2).then(|| segment.body.strip_prefix(PROFILE_NAME)).flatten()
        else {
            continue;
        };
        if *number != next || profile.len() + piece.len() > MAX_PROFILE {
            return None;
        }
        profile.extend_from_slice(piece);
        if number == of {
            return Some(profile);
        }
        next += 1;
    }
    None
}
