//! Pixels in memory: tightly packed, row by row from the top left, 8-bit sRGB.

use crate::error::ImageError;

/// What one pixel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One byte: luma of sRGB (0.299 R + 0.587 G + 0.114 B of the coded values).
    Gray,
    /// Three bytes in the order red, green, blue.
    Rgb,
}

impl Channels {
    /// Bytes of one pixel.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// A decoded picture: the right way up, sRGB, opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row; never 0.
    pub width: u32,
    /// Rows; never 0.
    pub height: u32,
    /// What one pixel is made of.
    pub channels: Channels,
    /// `width * height * channels` bytes.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// A picture of the given pixels.
    /// # Errors
    /// [`ImageError::Pixels`] when an edge is 0 or `pixels` is not `width * height * channels` bytes.
    pub fn new(width: u32, height: u32, channels: Channels, pixels: Vec<u8>) -> Result<Self, ImageError> {
        let picture = Self { width, height, channels, pixels };
        picture.check()?;
        Ok(picture)
    }

    /// The fields are public, so what leaves for an encoder or a resizer is checked again.
    pub(crate) fn check(&self) -> Result<(), ImageError> {
        let Self { width, height, .. } = *self;
        let expected = u64::from(width) * u64::from(height) * self.channels.count() as u64;
        if expected == 0 || self.pixels.len() as u64 != expected {
            let reason =
                format!("{width}x{height} px of {:?} are {expected} bytes, not {}", self.channels, self.pixels.len());
            return Err(ImageError::Pixels { reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_must_fit_the_size() {
        assert!(Picture::new(2, 1, Channels::Rgb, vec![0; 6]).is_ok());
        assert!(Picture::new(2, 1, Channels::Rgb, vec![0; 5]).is_err());
        assert!(Picture::new(0, 1, Channels::Gray, vec![]).is_err());
    }
}
