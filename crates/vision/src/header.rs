//! Reads a picture's header: what it is, how large, and what decoding it will cost. Nothing is allocated.
//!
//! Why by hand: limits must be checked before a decoder is built, because some decoders allocate (or unpack a comment of
//! 64 MiB) in their constructor. The decoder's own idea of the size is compared with this one before pixels are made.

mod code_tables;
mod exif;
mod jpeg;
mod png;
mod small;
mod tiff;
mod webp;

use crate::error::{Excess, ImageError};
use crate::orientation::Orientation;
use crate::signature;
use std::fmt;

pub(crate) use jpeg::{JpegHeader, ends as jpeg_ends, profile as jpeg_profile};
pub(crate) use tiff::profile as tiff_profile;
pub(crate) use webp::chunk as webp_chunk;

/// What a picture may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encoded bytes.
    pub bytes: u64,
    /// Width times height.
    pub pixels: u64,
    /// Pixels of the longer edge.
    pub edge: u32,
}

impl Default for Limits {
    /// 15 MiB (in base64, too, that fits a frame that every Thrift client takes), 64 million pixels (phones make 12 to 50
    /// million), 20,000 px an edge.
    fn default() -> Self {
        Self { bytes: 15 << 20, pixels: 64_000_000, edge: 20_000 }
    }
}

impl Limits {
    pub(crate) fn check_bytes(&self, encoded: &[u8]) -> Result<(), Excess> {
        let bytes = encoded.len() as u64;
        if bytes > self.bytes { Err(Excess::Bytes { bytes, limit: self.bytes }) } else { Ok(()) }
    }

    fn check_size(&self, (width, height): (u32, u32)) -> Result<(), Excess> {
        let (width, height) = (u64::from(width), u64::from(height));
        if width.max(height) > u64::from(self.edge) {
            return Err(Excess::Edge { width, height, limit: self.edge });
        }
        // At most 2^32 squared less a little: fits.
        if width * height > self.pixels {
            return Err(Excess::Pixels { width, height, limit: self.pixels });
        }
        Ok(())
    }
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG: baseline, progressive and arithmetic coding in 8 bit, gray, colour, and ink colours.
    Jpeg,
    /// PNG, and the first (default) picture of an APNG.
    Png,
    /// GIF, first frame.
    Gif,
    /// WebP, lossy and lossless, first frame.
    WebP,
    /// BMP.
    Bmp,
    /// TIFF, first page.
    Tiff,
    /// Windows icon: its best entry.
    Ico,
}

impl Format {
    /// The registered media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
            Self::Ico => "image/vnd.microsoft.icon",
        }
    }

    /// The usual ending of file names, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
            Self::Ico => "ico",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Ico => "ICO",
        })
    }
}

/// What the consumer of a picture needs, so that no more than that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The picture may be decoded smaller as long as it keeps this width (after orientation) ...
    pub min_width: u32,
    /// ... and this height. Never enlarged to reach them.
    pub min_height: u32,
    /// Only luma is needed.
    pub gray: bool,
}

impl Wanted {
    /// Every pixel, in colour where the picture has colour.
    pub const EVERYTHING: Self = Self { min_width: u32::MAX, min_height: u32::MAX, gray: false };
}

/// What is known of a picture before decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// By the bytes, not by any name.
    pub format: Format,
    /// Pixels in a row, after orientation.
    pub width: u32,
    /// Rows, after orientation.
    pub height: u32,
    /// How the stored pixels have to be turned.
    pub orientation: Orientation,
    pub(crate) coding: Coding,
    pub(crate) has_profile: bool,
}

/// How the pixels are stored, as far as cost depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Jpeg(JpegHeader),
    /// `pixel_bytes`: of one pixel when expanded, before it is made 8 bit and opaque. `gray_alpha`: that is what it then is.
    Png {
        pixel_bytes: u64,
        gray_alpha: bool,
    },
    Gif,
    /// `table_bytes`: what tables for lossless streams may take, of colours or of alpha.
    WebP {
        lossless: bool,
        bytes: u64,
        table_bytes: u64,
    },
    Bmp,
    /// `tag_bytes`: for reading the directory's values.
    Tiff {
        pixel_bytes: u64,
        tag_bytes: u64,
    },
    /// The best entry of an icon: where it lies, and whether it is a PNG.
    Ico {
        offset: usize,
        png: bool,
    },
}

/// What a format's own reader found.
pub(crate) struct Found {
    pub(crate) stored: (u32, u32),
    pub(crate) orientation: Orientation,
    pub(crate) coding: Coding,
    pub(crate) has_profile: bool,
}

impl Found {
    pub(crate) fn plain(stored: (u32, u32), coding: Coding) -> Self {
        Self { stored, orientation: Orientation::Upright, coding, has_profile: false }
    }
}

/// Reads only the header: recognises the format and checks the limits. Allocates nothing.
///
/// # Errors
/// Every [`ImageError`] but the last two; a size over the limits is told even when the rest is damaged.
pub fn inspect(encoded: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    limits.check_bytes(encoded)?;
    let format = signature::recognise(encoded)?;
    let found = match format {
        Format::Jpeg => jpeg::read(encoded, limits),
        Format::Png => png::read(encoded),
        Format::Gif => small::read_gif(encoded),
        Format::WebP => webp::read(encoded),
        Format::Bmp => small::read_bmp(encoded),
        Format::Tiff => tiff::read(encoded),
        Format::Ico => small::read_ico(encoded),
    }?;
    let (width, height) = found.orientation.turned(found.stored);
    if width == 0 || height == 0 {
        return Err(ImageError::corrupt(format, format!("it claims to be {width}x{height} px")));
    }
    limits.check_size((width, height))?;
    let Found { orientation, coding, has_profile, .. } = found;
    Ok(Header { format, width, height, orientation, coding, has_profile })
}

/// What decoders keep besides pixels: tables, windows, a few rows, a colour profile's lookup tables.
pub(crate) const WORKING_BYTES: u64 = 768 << 10;

impl Header {
    /// Width and height as stored, before orientation.
    pub(crate) fn stored(&self) -> (u32, u32) {
        self.orientation.turned((self.width, self.height))
    }

    /// Bytes that [`crate::decode`] holds at its peak for `wanted` (after DCT scaling for JPEG), so that a budget can be
    /// taken before. An upper bound, except that hostile lossy WebP makes its decoder reserve (not touch) up to 16 MiB.
    #[must_use]
    pub fn decoded_bytes(&self, wanted: Wanted) -> u64 {
        let (stored_width, stored_height) = self.stored();
        let pixels = u64::from(stored_width) * u64::from(stored_height);
        let row = u64::from(stored_width);
        let (raw, out_pixels) = match self.coding {
            Coding::Jpeg(jpeg) => {
                let scale = self.jpeg_scale(wanted);
                let scaled = scale.pixels(stored_width, stored_height);
                let pixel_bytes = if jpeg.is_ink() {
                    4
                } else if wanted.gray && !self.has_profile {
                    1
                } else {
                    3
                };
                // 32: rows of all components that are in work at once, up to 16 lines of 2 bytes.
                (scaled * pixel_bytes + jpeg.coefficient_bytes() + row * 128, scaled)
            }
            Coding::Png { pixel_bytes, gray_alpha } => {
                // On a coloured background gray becomes colour in a second buffer. The background is not known here.
                let flattened = if gray_alpha && !wanted.gray { 3 } else { 0 };
                // Four rows of the decoder's own.
                (pixels * (pixel_bytes + flattened) + row * pixel_bytes * 4, pixels)
            }
            // A frame that does not fill the screen is decoded beside it.
            Coding::Gif => (pixels * 8, pixels),
            // Frame, canvas and result of an animation.
            Coding::WebP { lossless: true, table_bytes, .. } => (pixels * 14 + table_bytes, pixels),
            Coding::WebP { lossless: false, bytes, table_bytes } => {
                (pixels * 10 + row * 64 + bytes + table_bytes, pixels)
            }
            Coding::Bmp => (pixels * 4 + row * 8, pixels),
            // The decoder makes a picture of its own, from strips that may be as large.
            Coding::Tiff { pixel_bytes, tag_bytes } => (pixels * pixel_bytes * 3 + tag_bytes, pixels),
            Coding::Ico { .. } => (pixels * 8 + row * 16, pixels),
        };
        let turned = if self.orientation.swaps_edges() { out_pixels * if wanted.gray { 1 } else { 3 } } else { 0 };
        raw + turned + WORKING_BYTES
    }

    /// Refuses a picture whose code tables would take more than [`Header::decoded_bytes`] has for them. Takes time for them and
    /// for a sixteenth of the pixels, so that it belongs where pictures are decoded.
    pub(crate) fn check_tables(&self, encoded: &[u8]) -> Result<(), Excess> {
        match self.coding {
            Coding::WebP { table_bytes, .. }
                if table_bytes > 0 && code_tables::bytes(encoded, self.stored(), table_bytes) > table_bytes =>
            {
                Err(Excess::Memory { format: self.format })
            }
            _ => Ok(()),
        }
    }

    /// The smallest power-of-two scale that still gives what is wanted.
    pub(crate) fn jpeg_scale(&self, wanted: Wanted) -> DctScale {
        let Coding::Jpeg(jpeg) = self.coding else { return DctScale::FULL };
        if jpeg.lossless {
            return DctScale::FULL;
        }
        // Only these three are fast in the library; the ones between are slower than decoding everything.
        [8, 4, 2]
            .into_iter()
            .map(DctScale)
            .find(|scale| scale.edge(self.width) >= wanted.min_width && scale.edge(self.height) >= wanted.min_height)
            .unwrap_or(DctScale::FULL)
    }

    /// Whether colours that are stored at half the size may be repeated instead of interpolated, which costs a tenth of the
    /// decoding: where the picture then shrinks to four sevenths or less, the filter that shrinks it blurs them more than that.
    /// Pixels of a row move by 0.05 to 0.3 levels in the mean, and where strong colours meet by up to 12.
    pub(crate) fn jpeg_colours_may_be_coarse(&self, wanted: Wanted) -> bool {
        // What is wanted is twice what the picture will be resized to.
        let shrinks = |edge: u32, wanted: u32| u64::from(edge) * 8 >= u64::from(wanted) * 7;
        shrinks(self.width, wanted.min_width) && shrinks(self.height, wanted.min_height)
    }
}

/// Decoding at 1/1, 1/2, 1/4 or 1/8 of the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DctScale(pub(crate) u32);

impl DctScale {
    const FULL: Self = Self(1);

    pub(crate) fn edge(self, full: u32) -> u32 {
        full.div_ceil(self.0)
    }

    fn pixels(self, width: u32, height: u32) -> u64 {
        u64::from(self.edge(width)) * u64::from(self.edge(height))
    }
}

/// Big-endian number at `at`, if the bytes reach that far.
pub(crate) fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Big-endian number at `at`, if the bytes reach that far.
pub(crate) fn be_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Little-endian number at `at`, if the bytes reach that far.
pub(crate) fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Little-endian number at `at`, if the bytes reach that far.
pub(crate) fn le_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(crate) fn cut_off(format: Format) -> ImageError {
    ImageError::corrupt(format, "it ends inside its header")
}

#[cfg(test)]
mod tests;
