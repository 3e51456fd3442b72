//! Pixels to bytes. What leaves here holds pixels and nothing else: no EXIF, no place, no maker, no profile (it is sRGB).

use crate::error::ImageError;
use crate::header::{Limits, Wanted, inspect};
use crate::picture::{Channels, Picture};
use crate::row::resize_whole;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

/// Good enough to recognise a picture in a list, 5 to 10 KB at 256 px.
const PREVIEW_QUALITY: u8 = 80;

fn refused(reason: impl ToString) -> ImageError {
    ImageError::Pixels { reason: reason.to_string() }
}

/// A baseline JPEG. `quality`: 1 to 100, clamped; colour is stored at half resolution, as cameras do.
/// # Errors
/// [`ImageError::Pixels`] when the pixels do not fit the size or an edge is over 65,500 px.
pub fn encode_jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>, ImageError> {
    picture.check()?;
    let (format, sampling) = match picture.channels {
        Channels::Gray => (PixelFormat::GRAY, Subsamp::Gray),
        Channels::Rgb => (PixelFormat::RGB, Subsamp::Sub2x2),
    };
    let width = picture.width as usize;
    let image = Image {
        pixels: picture.pixels.as_slice(),
        width,
        pitch: width * format.size(),
        height: picture.height as usize,
        format,
    };
    let mut compressor = Compressor::new().map_err(refused)?;
    compressor.set_quality(i32::from(quality.clamp(1, 100))).map_err(refused)?;
    compressor.set_subsamp(sampling).map_err(refused)?;
    compressor.compress_to_vec(image).map_err(refused)
}

/// A PNG, 8-bit gray or RGB, packed fast rather than small.
/// # Errors
/// [`ImageError::Pixels`] when the pixels do not fit the size.
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, ImageError> {
    picture.check()?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
    encoder.set_color(match picture.channels {
        Channels::Gray => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
    });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(refused)?;
    writer.write_image_data(&picture.pixels).map_err(refused)?;
    writer.finish().map_err(refused)?;
    Ok(bytes)
}

/// A small JPEG whose longer edge is at most `max_edge` px (at least 1; never enlarged).
/// # Errors
/// As [`encode_jpeg`].
pub fn preview(picture: &Picture, max_edge: u32) -> Result<Vec<u8>, ImageError> {
    picture.check()?;
    let (width, height) = fitted((picture.width, picture.height), max_edge);
    if (width, height) == (picture.width, picture.height) {
        return encode_jpeg(picture, PREVIEW_QUALITY);
    }
    encode_jpeg(&resize_whole(picture, width, height)?, PREVIEW_QUALITY)
}

/// A small JPEG of an encoded picture; alpha is laid on white. Takes up to `decoded_bytes` of what is wanted.
/// # Errors
/// Those of [`inspect`] and [`crate::decode`].
pub fn preview_encoded(encoded: &[u8], limits: &Limits, max_edge: u32) -> Result<Vec<u8>, ImageError> {
    let header = inspect(encoded, limits)?;
    let (min_width, min_height) = fitted((header.width, header.height), max_edge);
    let picture = crate::decode(encoded, &header, &Wanted { min_width, min_height, gray: false }, [255; 3])?;
    preview(&picture, max_edge)
}

/// The size with the same shape whose longer edge is at most `max_edge`; no edge becomes 0.
fn fitted((width, height): (u32, u32), max_edge: u32) -> (u32, u32) {
    let (max_edge, longer) = (u64::from(max_edge.max(1)), u64::from(width.max(height)));
    if longer <= max_edge {
        return (width, height);
    }
    let fit = |edge: u32| ((u64::from(edge) * max_edge + longer / 2) / longer).max(1) as u32;
    (fit(width), fit(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    fn decoded(bytes: &[u8]) -> Picture {
        let header = inspect(bytes, &Limits::default()).expect("header");
        decode(bytes, &header, &Wanted::EVERYTHING, [0; 3]).expect("decodes")
    }

    fn gradient(channels: Channels) -> Picture {
        let pixels = (0..64 * 40 * channels.count()).map(|index| (index / 40 % 256) as u8).collect();
        Picture::new(64, 40, channels, pixels).expect("fits")
    }

    #[test]
    fn png_gives_back_the_very_pixels() {
        for channels in [Channels::Gray, Channels::Rgb] {
            let picture = gradient(channels);
            assert_eq!(decoded(&encode_png(&picture).expect("encodes")), picture);
        }
    }

    #[test]
    fn jpeg_keeps_red_red() {
        let red = Picture::new(32, 16, Channels::Rgb, [220, 30, 30].repeat(32 * 16)).expect("fits");
        let back = decoded(&encode_jpeg(&red, 95).expect("encodes"));
        assert_eq!((back.width, back.height, back.channels), (32, 16, Channels::Rgb));
        assert!(back.pixels.iter().zip(&red.pixels).all(|(one, other)| one.abs_diff(*other) <= 4));
        let gray = gradient(Channels::Gray);
        assert_eq!(decoded(&encode_jpeg(&gray, 95).expect("encodes")).channels, Channels::Gray);
    }

    #[test]
    fn previews_keep_their_shape_and_never_vanish() {
        assert_eq!(fitted((640, 480), 256), (256, 192));
        assert_eq!(fitted((1, 20_000), 256), (1, 256));
        assert_eq!(fitted((20_000, 3), 0), (1, 1));
        assert_eq!(fitted((10, 10), 256), (10, 10));
        let small = decoded(&preview(&gradient(Channels::Rgb), 16).expect("encodes"));
        assert_eq!((small.width, small.height), (16, 10));
    }

    #[test]
    fn pixels_that_do_not_fit_are_refused() {
        let broken = Picture { width: 9, height: 9, channels: Channels::Gray, pixels: vec![0; 9] };
        assert!(encode_jpeg(&broken, 80).is_err() && encode_png(&broken).is_err() && preview(&broken, 4).is_err());
    }
}
