//! GIF, WebP, BMP, TIFF and bitmap icons through the `image` crate, with its limits set to what the header explains.

use super::{Raw, Samples, buffer, check_size};
use crate::colour;
use crate::error::{Excess, ImageError};
use crate::header::{Format, Header, WORKING_BYTES, Wanted};
use crate::profile::Conversion;
use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, ico::IcoDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageResult};
use std::io::Cursor;

const ADVICE: &str = "save it as PNG or JPEG";

pub(super) fn decode(encoded: &[u8], header: &Header, conversion: Option<Conversion>) -> Result<Raw, ImageError> {
    let bytes = Cursor::new(encoded);
    let (pixels, colour) = match header.format {
        Format::Gif => read(GifDecoder::new(bytes), header),
        Format::WebP => read(WebPDecoder::new(bytes), header),
        Format::Bmp => read(BmpDecoder::new(bytes), header),
        Format::Tiff => read(TiffDecoder::new(bytes), header),
        Format::Ico => read(IcoDecoder::new(bytes), header),
        Format::Jpeg | Format::Png => return Err(ImageError::unsupported(header.format.to_string(), ADVICE)),
    }?;
    let (pixels, samples) = narrow(pixels, colour, header.format)?;
    let (width, height) = header.stored();
    Ok(Raw { pixels, width, height, samples, conversion })
}

fn read<D: ImageDecoder>(decoder: ImageResult<D>, header: &Header) -> Result<(Vec<u8>, ColorType), ImageError> {
    let judged = |error: image::ImageError| judged(&error, header.format);
    let mut decoder = decoder.map_err(judged)?;
    check_size(header, decoder.dimensions())?;
    let budget = header.decoded_bytes(Wanted::EVERYTHING);
    let mut limits = image::Limits::no_limits();
    // The decoders do not count their tables.
    limits.max_alloc = Some(budget - WORKING_BYTES / 2);
    decoder.set_limits(limits).map_err(judged)?;
    if decoder.total_bytes() > budget {
        return Err(Excess::Memory { format: header.format }.into());
    }
    let colour = decoder.color_type();
    let mut pixels = buffer(header.format, decoder.total_bytes())?;
    decoder.read_image(&mut pixels).map_err(judged)?;
    Ok((pixels, colour))
}

fn narrow(mut pixels: Vec<u8>, colour: ColorType, format: Format) -> Result<(Vec<u8>, Samples), ImageError> {
    match colour {
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            colour::narrow_16(&mut pixels, u16::from_ne_bytes);
        }
        ColorType::Rgb32F | ColorType::Rgba32F => colour::narrow_f32(&mut pixels),
        _ => {}
    }
    let samples = match colour {
        ColorType::L8 | ColorType::L16 => Samples::Gray,
        ColorType::La8 | ColorType::La16 => Samples::GrayAlpha,
        ColorType::Rgb8 | ColorType::Rgb16 | ColorType::Rgb32F => Samples::Rgb,
        ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F => Samples::Rgba,
        other => return Err(ImageError::unsupported(format!("{format} with pixels of {other:?}"), ADVICE)),
    };
    Ok((pixels, samples))
}

fn judged(error: &image::ImageError, format: Format) -> ImageError {
    match error {
        image::ImageError::Unsupported(reason) => {
            ImageError::unsupported(format!("a {format} like this ({reason})"), ADVICE)
        }
        image::ImageError::Limits(_) => Excess::Memory { format }.into(),
        other => ImageError::corrupt(format, other.to_string()),
    }
}
