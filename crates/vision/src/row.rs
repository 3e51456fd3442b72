//! Writes one row of a model's input tensor from a picture.

use crate::colour::luma;
use crate::error::ImageError;
use crate::picture::{Channels, Picture};
use crate::recipe::{ColorOrder, Dtype, Filter, Fit, InputTable, Invert, Layout, Recipe, Trim};
use crate::subject::{self, Gray, Part, Subject};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use half::f16;

/// Buffers that one thread uses for picture after picture.
#[derive(Debug, Default)]
pub struct Scratch {
    resizer: Resizer,
    gray: Vec<u8>,
    reduced: Vec<u8>,
    resized: Vec<u8>,
    framed: Vec<u8>,
    decoded: Vec<u8>,
}

/// Buffers above this are given back after a picture, so that one giant does not stay for the life of the thread.
const KEPT_BYTES: usize = 8 << 20;

impl Scratch {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the pixels of a picture that is not needed any more, for the next one to be decoded into.
    pub fn keep(&mut self, picture: Picture) {
        if picture.pixels.capacity() <= KEPT_BYTES {
            self.decoded = picture.pixels;
        }
    }

    /// Memory for pixels, whatever they are.
    pub(crate) fn take_decoded(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.decoded)
    }

    fn give_back_giants(&mut self) {
        for buffer in [&mut self.gray, &mut self.reduced, &mut self.resized, &mut self.framed] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
        if self.resizer.size_of_internal_buffers() > KEPT_BYTES {
            self.resizer.reset_internal_buffers();
        }
    }
}

/// Which part of the source goes where in the row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Placement {
    /// Left, top, width, height in source pixels; borders may lie inside a pixel.
    source: [f64; 4],
    /// Left, top, width, height in pixels of the row.
    target: Part,
}

impl Placement {
    /// The size that the whole source is resized to, before anything is cut off.
    pub(crate) fn resized(table: &InputTable, width: u32, height: u32) -> (u32, u32) {
        let (to_width, to_height) = (table.width, table.height);
        match table.fit {
            Fit::Stretch => (to_width, to_height),
            Fit::Crop => {
                let shorter = u64::from(table.resize.unwrap_or(to_width.max(to_height)));
                let (wide, high) = (u64::from(width), u64::from(height));
                // The longer edge is rounded down, as torchvision and transformers do. It fits: 20,000 * 8,192 at most.
                let longer = |edge: u64, other: u64| (shorter * edge / other) as u32;
                if wide <= high { (shorter as u32, longer(high, wide)) } else { (longer(wide, high), shorter as u32) }
            }
            Fit::Pad => {
                let (x, y) = (f64::from(to_width) / f64::from(width), f64::from(to_height) / f64::from(height));
                let scaled = |edge: u32, most: u32| ((f64::from(edge) * x.min(y)).round() as u32).clamp(1, most);
                (scaled(width, to_width), scaled(height, to_height))
            }
        }
    }

    fn of(table: &InputTable, source_width: u32, source_height: u32) -> Self {
        let (width, height) = Self::resized(table, source_width, source_height);
        let (source_width, source_height) = (f64::from(source_width), f64::from(source_height));
        let all = Part { left: 0, top: 0, width: table.width, height: table.height };
        match table.fit {
            Fit::Stretch => Self { source: [0.0, 0.0, source_width, source_height], target: all },
            Fit::Crop => {
                let (scale_x, scale_y) = (source_width / f64::from(width), source_height / f64::from(height));
                let left = f64::from(half_to_even(width - table.width)) * scale_x;
                let top = f64::from(half_to_even(height - table.height)) * scale_y;
                let cut_width = (f64::from(table.width) * scale_x).min(source_width - left);
                let cut_height = (f64::from(table.height) * scale_y).min(source_height - top);
                Self { source: [left, top, cut_width, cut_height], target: all }
            }
            Fit::Pad => {
                let target = Part { left: (table.width - width) / 2, top: (table.height - height) / 2, width, height };
                Self { source: [0.0, 0.0, source_width, source_height], target }
            }
        }
    }
}

/// Half of `span`; a half pixel goes to the even neighbour, as Python's `round` in torchvision's centre crop.
fn half_to_even(span: u32) -> u32 {
    let half = span / 2;
    if span % 2 == 1 { half + half % 2 } else { half }
}

impl Recipe {
    /// Writes one row of `f32`, whatever the recipe's dtype.
    ///
    /// Values are `(pixel * scale - mean) / std`; axes as [`Recipe::row_shape`].
    /// # Errors
    /// [`ImageError::WrongRow`] when `row` has not [`Recipe::row_elements`] elements; [`ImageError::Pixels`] when the
    /// picture's pixels do not fit its size.
    pub fn write_row(&self, picture: &Picture, scratch: &mut Scratch, row: &mut [f32]) -> Result<(), ImageError> {
        self.write(picture, scratch, row, |value| value)
    }

    /// Writes one row as little-endian bytes of the recipe's dtype.
    /// # Errors
    /// As [`Recipe::write_row`], with [`Recipe::row_bytes`].
    pub fn write_row_bytes(&self, picture: &Picture, scratch: &mut Scratch, row: &mut [u8]) -> Result<(), ImageError> {
        if row.len() != self.row_bytes() {
            return Err(ImageError::WrongRow { expected: self.row_bytes(), actual: row.len() });
        }
        match self.table().dtype {
            Dtype::F32 => self.write(picture, scratch, row.as_chunks_mut().0, f32::to_le_bytes),
            Dtype::F16 => {
                self.write(picture, scratch, row.as_chunks_mut().0, |value| f16::from_f32(value).to_le_bytes())
            }
            Dtype::U8 => self.write(picture, scratch, row, |value| value.round() as u8),
        }
    }

    fn write<T: Copy>(
        &self,
        picture: &Picture,
        scratch: &mut Scratch,
        row: &mut [T],
        element: impl Fn(f32) -> T,
    ) -> Result<(), ImageError> {
        picture.check()?;
        if row.len() != self.row_elements() {
            return Err(ImageError::WrongRow { expected: self.row_elements(), actual: row.len() });
        }
        let table = self.table();
        let Scratch { resizer, gray, reduced, resized, framed, .. } = scratch;
        let source = if table.color == ColorOrder::Gray && picture.channels == Channels::Rgb {
            gray.clear();
            gray.extend(picture.pixels.as_chunks::<3>().0.iter().map(|&rgb| luma(rgb)));
            Source { pixels: gray.as_slice(), width: picture.width, height: picture.height, channels: 1 }
        } else {
            Source::whole(picture)
        };
        let found = if table.invert == Invert::Auto { source.subject(table, resizer, reduced)? } else { None };
        // A subject is light on black already, and what is around it is black.
        let (source, background) = match &found {
            Some(subject) => (Source::of_subject(subject), [0; 3]),
            None => (source, self.background()),
        };
        let inverted = table.invert == Invert::Always;
        let placement = Placement::of(table, source.width, source.height);
        let pixels = source.place(placement, table, background, resizer, resized, framed)?;

        let levels: Vec<[T; 256]> = self
            .levels
            .iter()
            .map(|levels| std::array::from_fn(|level| element(levels[if inverted { 255 - level } else { level }])))
            .collect();
        match (source.channels, table.layout) {
            (1, Layout::Nchw) => {
                for (plane, levels) in row.chunks_exact_mut(pixels.len()).zip(&levels) {
                    for (value, pixel) in plane.iter_mut().zip(pixels) {
                        *value = levels[usize::from(*pixel)];
                    }
                }
            }
            (1, Layout::Nhwc) => {
                for (values, pixel) in row.chunks_exact_mut(levels.len()).zip(pixels) {
                    for (value, levels) in values.iter_mut().zip(&levels) {
                        *value = levels[usize::from(*pixel)];
                    }
                }
            }
            (_, layout) => {
                let order: [usize; 3] = if table.color == ColorOrder::Bgr { [2, 1, 0] } else { [0, 1, 2] };
                let pixels = pixels.as_chunks::<3>().0;
                for (channel, from) in order.into_iter().enumerate() {
                    let levels = &levels[channel];
                    match layout {
                        Layout::Nchw => {
                            let plane = &mut row[channel * pixels.len()..][..pixels.len()];
                            for (value, pixel) in plane.iter_mut().zip(pixels) {
                                *value = levels[usize::from(pixel[from])];
                            }
                        }
                        Layout::Nhwc => {
                            for (values, pixel) in row.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                                values[channel] = levels[usize::from(pixel[from])];
                            }
                        }
                    }
                }
            }
        }
        scratch.give_back_giants();
        Ok(())
    }
}

/// Pixels to take a row from.
struct Source<'a> {
    pixels: &'a [u8],
    width: u32,
    height: u32,
    channels: usize,
}

impl<'a> Source<'a> {
    fn whole(picture: &'a Picture) -> Self {
        let Picture { width, height, channels, ref pixels } = *picture;
        Self { pixels, width, height, channels: channels.count() }
    }

    fn of_subject(subject: &'a Subject) -> Self {
        Self { pixels: &subject.pixels, width: subject.width as u32, height: subject.height as u32, channels: 1 }
    }

    /// The subject, light on black, when this (gray) source has a light background.
    fn subject(
        &self,
        table: &InputTable,
        resizer: &mut Resizer,
        reduced: &mut Vec<u8>,
    ) -> Result<Option<Subject>, ImageError> {
        let size = subject::reduced((self.width, self.height));
        let pixels = if size == (self.width, self.height) {
            self.pixels
        } else {
            let whole = [0.0, 0.0, f64::from(self.width), f64::from(self.height)];
            self.resize(whole, size, Filter::Bilinear, resizer, reduced)?;
            reduced.as_slice()
        };
        let image = Gray { pixels, width: size.0 as usize, height: size.1 as usize };
        let trim = (table.trim == Trim::Auto).then(|| table.trim_margin.unwrap_or(0.0));
        Ok(subject::has_light_background(image).then(|| subject::extract(image, trim)))
    }

    /// The pixels of the row, resized and framed, in this source's channels.
    fn place<'b>(
        &self,
        placement: Placement,
        table: &InputTable,
        background: [u8; 3],
        resizer: &mut Resizer,
        resized: &'b mut Vec<u8>,
        framed: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], ImageError>
    where
        'a: 'b,
    {
        let Placement { source, target } = placement;
        let whole = [0.0, 0.0, f64::from(self.width), f64::from(self.height)];
        let as_it_is = source == whole && (target.width, target.height) == (self.width, self.height);
        let pixels: &'b [u8] = if as_it_is {
            self.pixels
        } else {
            self.resize(source, (target.width, target.height), table.filter, resizer, resized)?;
            resized
        };
        if (target.width, target.height) == (table.width, table.height) {
            return Ok(pixels);
        }
        framed.clear();
        let area = table.width as usize * table.height as usize;
        match self.channels {
            1 => framed.resize(area, luma(background)),
            _ => framed.extend(std::iter::repeat_n(background, area).flatten()),
        }
        let line = target.width as usize * self.channels;
        let pitch = table.width as usize * self.channels;
        let start = target.top as usize * pitch + target.left as usize * self.channels;
        for (from, to) in pixels.chunks_exact(line).zip(framed[start..].chunks_mut(pitch)) {
            to[..line].copy_from_slice(from);
        }
        Ok(framed)
    }

    fn resize(
        &self,
        [left, top, width, height]: [f64; 4],
        (to_width, to_height): (u32, u32),
        filter: Filter,
        resizer: &mut Resizer,
        into: &mut Vec<u8>,
    ) -> Result<(), ImageError> {
        let kind = if self.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let refused = |reason: &dyn std::fmt::Display| ImageError::Pixels { reason: reason.to_string() };
        into.resize(to_width as usize * to_height as usize * self.channels, 0);
        let source = ImageRef::new(self.width, self.height, self.pixels, kind).map_err(|error| refused(&error))?;
        let mut target = Image::from_slice_u8(to_width, to_height, into, kind).map_err(|error| refused(&error))?;
        let algorithm = match filter {
            Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Filter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Filter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
            Filter::Box => ResizeAlg::Convolution(FilterType::Box),
            Filter::Nearest => ResizeAlg::Nearest,
        };
        let options = ResizeOptions::new().resize_alg(algorithm).crop(left, top, width, height).use_alpha(false);
        resizer.resize(&source, &mut target, &options).map_err(|error| refused(&error))
    }
}

/// The whole picture at another size, by mean over the area.
pub(crate) fn resize_whole(picture: &Picture, width: u32, height: u32) -> Result<Picture, ImageError> {
    let source = Source::whole(picture);
    let mut pixels = Vec::new();
    let part = [0.0, 0.0, f64::from(picture.width), f64::from(picture.height)];
    source.resize(part, (width, height), Filter::Bilinear, &mut Resizer::new(), &mut pixels)?;
    Picture::new(width, height, picture.channels, pixels)
}

#[cfg(test)]
mod tests;
