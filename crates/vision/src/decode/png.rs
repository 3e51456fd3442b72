//! PNG through the `png` crate itself, because `image` in between costs several microseconds that tiny pictures feel.

use super::{Raw, Samples, buffer, check_size};
use crate::colour;
use crate::error::{Excess, ImageError};
use crate::header::{Format, Header, Wanted};
use crate::profile;
use png::{BitDepth, ColorType, DecodingError, InterlaceInfo, Transformations};
use std::cell::Cell;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

/// Packed bytes that may be left after the last row for the rest to be read and its checksums compared. Encoders leave a
/// few; what is larger is a bomb, and is left packed.
const MAX_REST: usize = 1024;

/// Memory for what is not pixels: a colour profile, unpacked.
const MAX_EXTRA: usize = 4 << 20;

pub(super) fn decode(encoded: &[u8], header: &Header) -> Result<Raw, ImageError> {
    let position = Cell::new(0);
    let limits = png::Limits { bytes: MAX_EXTRA };
    let mut decoder = png::Decoder::new_with_limits(Slice { bytes: encoded, position: &position }, limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(!header.has_profile);
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(|error| judged(&error))?;
    let info = reader.info();
    check_size(header, info.size())?;
    // The file's own word that it is sRGB outweighs a profile.
    let conversion = match &info.icc_profile {
        Some(icc) if info.srgb.is_none() => profile::conversion(icc),
        _ => None,
    };
    let (width, height) = info.size();
    let interlaced = info.interlaced;
    let (colour, depth) = reader.output_color_type();
    let stride = reader.output_line_size(width).ok_or(Excess::Memory { format: header.format })?;
    let needed = stride as u64 * u64::from(height);
    if needed > header.decoded_bytes(Wanted::EVERYTHING) {
        return Err(Excess::Memory { format: header.format }.into());
    }
    let mut pixels = buffer(header.format, needed)?;

    if interlaced {
        let bits = (colour.samples() * depth as usize) as u8;
        while let Some(row) = reader.next_interlaced_row().map_err(|error| judged(&error))? {
            if let InterlaceInfo::Adam7(pass) = row.interlace() {
                png::expand_interlaced_row(&mut pixels, stride, row.data(), pass, bits);
            }
        }
    } else {
        for row in pixels.chunks_exact_mut(stride) {
            reader.read_row(row).map_err(|error| judged(&error))?;
        }
    }
    if encoded.len() - position.get() <= MAX_REST {
        reader.finish().map_err(|error| judged(&error))?;
    }

    if depth == BitDepth::Sixteen {
        colour::narrow_16(&mut pixels, u16::from_be_bytes);
    }
    let samples = match colour {
        ColorType::Grayscale => Samples::Gray,
        ColorType::GrayscaleAlpha => Samples::GrayAlpha,
        ColorType::Rgb => Samples::Rgb,
        ColorType::Rgba => Samples::Rgba,
        ColorType::Indexed => return Err(ImageError::corrupt(Format::Png, "it has no palette")),
    };
    Ok(Raw { pixels, width, height, samples, conversion })
}

fn judged(error: &DecodingError) -> ImageError {
    match error {
        DecodingError::LimitsExceeded => Excess::Memory { format: Format::Png }.into(),
        DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ImageError::corrupt(Format::Png, "it is cut off")
        }
        other => ImageError::corrupt(Format::Png, other.to_string()),
    }
}

/// A cursor whose position can be seen while the decoder owns it.
struct Slice<'a> {
    bytes: &'a [u8],
    position: &'a Cell<usize>,
}

impl Slice<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.position.get()..).unwrap_or_default()
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.rest().read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Slice<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        self.position.set(self.position.get() + count);
    }
}

impl Seek for Slice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => i128::from(offset),
            SeekFrom::Current(offset) => self.position.get() as i128 + i128::from(offset),
            SeekFrom::End(offset) => self.bytes.len() as i128 + i128::from(offset),
        };
        let position = usize::try_from(target).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.position.set(position);
        Ok(position as u64)
    }
}
