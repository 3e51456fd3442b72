//! JPEG through libjpeg-turbo: scaled down while decoding, and gray straight from luma, where the consumer allows it.

use super::{Raw, Samples, check_size};
use crate::colour;
use crate::error::ImageError;
use crate::header::{Format, Header, JpegHeader, Wanted, jpeg_ends};
use crate::profile::Conversion;
use std::cell::RefCell;
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

/// Progressive pictures have about 10 scans. Each one costs a pass over all coefficients, so thousands of empty ones are a
/// way to burn minutes with a few kilobytes.
const MAX_SCANS: u32 = 50;

thread_local! {
    /// One per decoding thread: making one costs more than decoding a thumbnail. It keeps no pixels between pictures.
    static DECOMPRESSOR: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// Decodes into the memory of `pixels`, whatever they are, if it is enough.
pub(super) fn decode(
    pixels: Vec<u8>,
    encoded: &[u8],
    header: &Header,
    jpeg: JpegHeader,
    wanted: Wanted,
    conversion: Option<Conversion>,
) -> Result<Raw, ImageError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|error| judged(&error))?),
        };
        let raw = decode_with(decompressor, pixels, encoded, header, jpeg, wanted, conversion);
        if raw.is_err() {
            *slot = None;
        }
        raw
    })
}

fn decode_with(
    decompressor: &mut Decompressor,
    mut pixels: Vec<u8>,
    encoded: &[u8],
    header: &Header,
    jpeg: JpegHeader,
    wanted: Wanted,
    conversion: Option<Conversion>,
) -> Result<Raw, ImageError> {
    let found = match decompressor.read_header(encoded) {
        Ok(found) => found,
        // A warning in the header loses nothing that the data would not tell again.
        Err(error) if is_harmless(&error) => decompressor.read_header(encoded).map_err(|error| judged(&error))?,
        Err(error) => return Err(judged(&error)),
    };
    check_size(header, (found.width as u32, found.height as u32))?;
    let scale = header.jpeg_scale(wanted);
    decompressor.set_scaling_factor(ScalingFactor::new(1, scale.0 as usize)).map_err(|error| judged(&error))?;
    decompressor.set_scan_limit(MAX_SCANS).map_err(|error| judged(&error))?;
    decompressor.set_fast_upsample(header.jpeg_colours_may_be_coarse(wanted)).map_err(|error| judged(&error))?;

    let format = if jpeg.is_ink() {
        PixelFormat::CMYK
    } else if jpeg.components == 1 || (wanted.gray && conversion.is_none()) {
        PixelFormat::GRAY
    } else {
        PixelFormat::RGB
    };
    let (stored_width, stored_height) = header.stored();
    let (width, height) = (scale.edge(stored_width), scale.edge(stored_height));
    let pitch = width as usize * format.size();
    let bytes = pitch * height as usize;
    if pixels.capacity() < bytes {
        drop(pixels);
        pixels = vec![0; bytes];
    }
    pixels.resize(bytes, 0);
    let image = Image { pixels: pixels.as_mut_slice(), width: width as usize, pitch, height: height as usize, format };
    match decompressor.decompress(encoded, image) {
        Ok(()) => {}
        // The library reports a picture that it could repair as an error, after decoding all of it. It tells only the first
        // such warning, so that what is harmless could hide a cut: the end marker shows that there is none.
        Err(error) if is_harmless(&error) && jpeg_ends(encoded, &jpeg) => {}
        Err(error) => return Err(judged(&error)),
    }
    let samples = match format {
        PixelFormat::GRAY => Samples::Gray,
        PixelFormat::CMYK => {
            colour::cmyk_to_rgb(&mut pixels, jpeg.adobe);
            Samples::Rgb
        }
        _ => Samples::Rgb,
    };
    // Profiles of ink colours are not applied: without one, viewers use the same plain formula.
    let conversion = if jpeg.is_ink() { None } else { conversion };
    Ok(Raw { pixels, width, height, samples, conversion })
}

/// Warnings about pictures of which nothing is missing; cameras and old programs write such files.
fn is_harmless(error: &turbojpeg::Error) -> bool {
    let turbojpeg::Error::TurboJpegError(message) = error else { return false };
    [
        "extraneous bytes before marker",
        "Inconsistent progression sequence",
        "Unknown Adobe color transform",
        "Invalid SOS parameters",
    ]
    .iter()
    .any(|harmless| message.contains(harmless))
}

fn judged(error: &turbojpeg::Error) -> ImageError {
    let message = match error {
        turbojpeg::Error::TurboJpegError(message) => message.trim(),
        other => return ImageError::corrupt(Format::Jpeg, other.to_string()),
    };
    let lower = message.to_ascii_lowercase();
    if lower.contains("unsupported") || lower.contains("not supported") || lower.contains("not implemented") {
        return ImageError::unsupported(format!("a JPEG like this ({message})"), "save it as ordinary 8-bit JPEG");
    }
    ImageError::corrupt(Format::Jpeg, message)
}
