//! Decodes a picture whose header has been checked, and brings it into the one form that the rest of the crate knows.

mod jpeg;
mod other;
mod png;

use crate::colour;
use crate::error::ImageError;
use crate::header::{Coding, Format, Header, Wanted, jpeg_profile, tiff_profile, webp_chunk};
use crate::picture::{Channels, Picture};
use crate::profile::{self, Conversion};
use crate::row::Scratch;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the samples of a decoded pixel mean, 8 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

/// Pixels as a decoder gave them: stored orientation, alpha still there, colours of the picture's own profile.
struct Raw {
    pixels: Vec<u8>,
    width: u32,
    height: u32,
    samples: Samples,
    /// For the decoders that hand the profile out with the pixels.
    conversion: Option<Conversion>,
}

/// Decodes the picture that `header` was read from: oriented, sRGB, alpha laid on `background` (R, G, B).
///
/// A JPEG may come scaled down by 2, 4 or 8, but not below what is `wanted`; in full size it may come with colours stored at half the
/// size repeated, where 8/7 of its edges reach what is `wanted`. Other formats come in full size. The result is gray when
/// `wanted.gray` says so or when the picture itself is gray. Peak memory: [`Header::decoded_bytes`].
/// # Errors
/// [`ImageError::Corrupt`] when the data is cut off, damaged or does not agree with the header;
/// [`ImageError::Unsupported`] for codings that only show while decoding; [`ImageError::TooLarge`] when a decoder needs
/// more memory than the header explains.
pub fn decode(encoded: &[u8], header: &Header, wanted: &Wanted, background: [u8; 3]) -> Result<Picture, ImageError> {
    decode_with(&mut Scratch::new(), encoded, header, wanted, background)
}

/// As [`decode`], where possible into the memory of a picture that the scratch [keeps](Scratch::keep).
/// # Errors
/// Those of [`decode`].
pub fn decode_with(
    scratch: &mut Scratch,
    encoded: &[u8],
    header: &Header,
    wanted: &Wanted,
    background: [u8; 3],
) -> Result<Picture, ImageError> {
    let format = header.format;
    // The decoders are fuzzed by their authors and by the tests here; a panic that is left must cost this picture only.
    catch_unwind(AssertUnwindSafe(|| decode_inside(scratch, encoded, header, wanted, background)))
        .unwrap_or_else(|_| Err(ImageError::corrupt(format, "its decoder gave up")))
}

fn decode_inside(
    scratch: &mut Scratch,
    encoded: &[u8],
    header: &Header,
    wanted: &Wanted,
    background: [u8; 3],
) -> Result<Picture, ImageError> {
    let raw = match header.coding {
        Coding::Jpeg(jpeg) => {
            let conversion = conversion_of(header, || jpeg_profile(encoded));
            jpeg::decode(scratch.take_decoded(), encoded, header, jpeg, *wanted, conversion)?
        }
        Coding::Png { .. } => png::decode(encoded, header)?,
        Coding::Ico { offset, png: true } => png::decode(encoded.get(offset..).unwrap_or_default(), header)?,
        Coding::Tiff { .. } => {
            let conversion = conversion_of(header, || tiff_profile(encoded).map(<[u8]>::to_vec));
            other::decode(encoded, header, conversion)?
        }
        Coding::WebP { .. } => {
            header.check_tables(encoded)?;
            let conversion = conversion_of(header, || webp_chunk(encoded, b"ICCP").map(<[u8]>::to_vec));
            other::decode(encoded, header, conversion)?
        }
        Coding::Gif | Coding::Bmp | Coding::Ico { .. } => other::decode(encoded, header, None)?,
    };
    finish(raw, header, wanted.gray, background)
}

fn conversion_of(header: &Header, profile: impl FnOnce() -> Option<Vec<u8>>) -> Option<Conversion> {
    header.has_profile.then(profile).flatten().and_then(|profile| profile::conversion(&profile))
}

/// Colours to sRGB, alpha onto the background, colour to gray when only that is wanted, then the right way up.
fn finish(raw: Raw, header: &Header, gray: bool, background: [u8; 3]) -> Result<Picture, ImageError> {
    let Raw { mut pixels, width, height, samples, conversion } = raw;
    if let Some(conversion) = conversion {
        conversion.apply(&mut pixels, samples);
    }
    let below = colour::luma(background);
    let mut channels = match samples {
        Samples::Gray => Channels::Gray,
        Samples::Rgb => Channels::Rgb,
        Samples::Rgba => {
            colour::flatten_rgba(&mut pixels, background);
            Channels::Rgb
        }
        Samples::GrayAlpha if gray || background == [below; 3] => {
            colour::flatten_gray(&mut pixels, below);
            Channels::Gray
        }
        Samples::GrayAlpha => {
            pixels = colour::flatten_gray_on_colour(&pixels, background);
            Channels::Rgb
        }
    };
    if gray && channels == Channels::Rgb {
        colour::rgb_to_gray(&mut pixels);
        channels = Channels::Gray;
    }
    let pixels = header.orientation.apply(pixels, width as usize, height as usize, channels.count());
    let (width, height) = header.orientation.turned((width, height));
    Picture::new(width, height, channels, pixels)
}

/// The decoder and the header must mean the same picture, or what was taken from the budget was wrong.
fn check_size(header: &Header, decoder: (u32, u32)) -> Result<(), ImageError> {
    let stored = header.stored();
    if decoder == stored {
        return Ok(());
    }
    let reason = format!("its header says {}x{} px, its data {}x{}", stored.0, stored.1, decoder.0, decoder.1);
    Err(ImageError::corrupt(header.format, reason))
}

/// A zeroed buffer, or the error that a picture as large as that deserves.
fn buffer(format: Format, bytes: u64) -> Result<Vec<u8>, ImageError> {
    let bytes = usize::try_from(bytes).map_err(|_| crate::Excess::Memory { format })?;
    Ok(vec![0; bytes])
}
