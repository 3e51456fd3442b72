//! Reads the first directory of a TIFF.

use super::exif::{BITS_PER_SAMPLE, Directory, HEIGHT, PROFILE, SAMPLES_PER_PIXEL, WIDTH};
use super::{Coding, Format, Found, cut_off};
use crate::error::ImageError;

pub(super) fn read(bytes: &[u8]) -> Result<Found, ImageError> {
    let directory = Directory::first(bytes).ok_or_else(|| cut_off(Format::Tiff))?;
    let (width, height) = directory
        .number(WIDTH)
        .zip(directory.number(HEIGHT))
        .ok_or_else(|| ImageError::corrupt(Format::Tiff, "it does not tell its size"))?;
    let bits = u64::from(directory.number(BITS_PER_SAMPLE).unwrap_or(1));
    let samples = u64::from(directory.number(SAMPLES_PER_PIXEL).unwrap_or(1));
    if bits > 64 || samples > 16 {
        return Err(ImageError::unsupported(
            format!("TIFF with {samples} samples of {bits} bits"),
            "save it as 8-bit RGB",
        ));
    }
    let pixel_bytes = bits.div_ceil(8) * samples.max(1);
    // The decoder allocates what a value claims before reading it: up to 256 MB.
    let tag_bytes = directory
        .reading_bytes()
        .ok_or_else(|| ImageError::corrupt(Format::Tiff, "a value of its directory lies outside the file"))?;
    let has_profile = directory.block(PROFILE).is_some();
    let orientation = directory.orientation();
    Ok(Found { stored: (width, height), orientation, coding: Coding::Tiff { pixel_bytes, tag_bytes }, has_profile })
}

/// The ICC profile, when there is one.
pub(crate) fn profile(bytes: &[u8]) -> Option<&[u8]> {
    Directory::first(bytes)?.block(PROFILE)
}
