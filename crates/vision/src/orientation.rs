//! Which way up a picture is stored (EXIF tag 0x0112), and turning pixels the right way.

/// How stored pixels have to be turned, in the numbering of EXIF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Orientation {
    /// 1: as stored.
    #[default]
    Upright = 1,
    /// 2: mirrored left to right.
    FlipX = 2,
    /// 3: upside down.
    Turn180 = 3,
    /// 4: mirrored top to bottom.
    FlipY = 4,
    /// 5: mirrored on the falling diagonal.
    Transpose = 5,
    /// 6: to be turned clockwise by a quarter.
    Turn90 = 6,
    /// 7: mirrored on the rising diagonal.
    Transverse = 7,
    /// 8: to be turned anticlockwise by a quarter.
    Turn270 = 8,
}

impl Orientation {
    /// The orientation behind an EXIF value; a value that does not exist is ignored, as viewers do.
    #[must_use]
    pub fn from_exif(value: u32) -> Self {
        match value {
            2 => Self::FlipX,
            3 => Self::Turn180,
            4 => Self::FlipY,
            5 => Self::Transpose,
            6 => Self::Turn90,
            7 => Self::Transverse,
            8 => Self::Turn270,
            _ => Self::Upright,
        }
    }

    /// Whether width and height change places.
    #[must_use]
    pub fn swaps_edges(self) -> bool {
        self as u8 >= 5
    }

    /// `(width, height)` after turning, or before it when given those after.
    #[must_use]
    pub fn turned(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.swaps_edges() { (height, width) } else { (width, height) }
    }

    /// Turns `width` x `height` stored pixels of `channels` bytes each. Only a change of edges takes a second buffer.
    pub(crate) fn apply(self, pixels: Vec<u8>, width: usize, height: usize, channels: usize) -> Vec<u8> {
        match channels {
            1 => self.apply_to::<1>(pixels, width, height),
            _ => self.apply_to::<3>(pixels, width, height),
        }
    }

    fn apply_to<const N: usize>(self, mut bytes: Vec<u8>, width: usize, height: usize) -> Vec<u8> {
        let pixels = bytes.as_chunks_mut::<N>().0;
        match self {
            Self::Upright => {}
            Self::FlipX => pixels.chunks_exact_mut(width).for_each(<[_]>::reverse),
            Self::Turn180 => pixels.reverse(),
            Self::FlipY => {
                for top in 0..height / 2 {
                    let (upper, lower) = pixels.split_at_mut((height - 1 - top) * width);
                    upper[top * width..][..width].swap_with_slice(&mut lower[..width]);
                }
            }
            Self::Transpose | Self::Turn90 | Self::Transverse | Self::Turn270 => {
                return self.exchange::<N>(pixels, width, height);
            }
        }
        bytes
    }

    /// The four ways in which rows become columns. Tiles keep both sides in the cache: row by row it is 5 times slower.
    fn exchange<const N: usize>(self, from: &[[u8; N]], width: usize, height: usize) -> Vec<u8> {
        const TILE: usize = 32;
        let mut bytes = vec![0; from.len() * N];
        let to = bytes.as_chunks_mut::<N>().0;
        let from_bottom = matches!(self, Self::Turn90 | Self::Transverse);
        let from_right = matches!(self, Self::Turn270 | Self::Transverse);
        for tile_y in (0..height).step_by(TILE) {
            for tile_x in (0..width).step_by(TILE) {
                for x in tile_x..(tile_x + TILE).min(width) {
                    let row = if from_right { width - 1 - x } else { x };
                    for y in tile_y..(tile_y + TILE).min(height) {
                        let column = if from_bottom { height - 1 - y } else { y };
                        to[row * height + column] = from[y * width + x];
                    }
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_ways_turn_a_small_picture_upright() {
        // Stored: 1 2 3
        //         4 5 6
        let stored = vec![1, 2, 3, 4, 5, 6];
        let upright: [&[u8]; 8] = [
            &[1, 2, 3, 4, 5, 6],
            &[3, 2, 1, 6, 5, 4],
            &[6, 5, 4, 3, 2, 1],
            &[4, 5, 6, 1, 2, 3],
            &[1, 4, 2, 5, 3, 6],
            &[4, 1, 5, 2, 6, 3],
            &[6, 3, 5, 2, 4, 1],
            &[3, 6, 2, 5, 1, 4],
        ];
        for (value, expected) in (1..).zip(upright) {
            let way = Orientation::from_exif(value);
            assert_eq!(way.apply(stored.clone(), 3, 2, 1), expected, "orientation {value}");
            let coloured = stored.iter().flat_map(|&value| [value, value + 10, value + 20]).collect();
            let turned = way.apply(coloured, 3, 2, 3);
            assert_eq!(
                turned.iter().step_by(3).copied().collect::<Vec<_>>(),
                expected,
                "orientation {value} in colour"
            );
        }
    }

    #[test]
    fn tiles_cover_pictures_that_are_no_multiple_of_them() {
        let (width, height) = (70, 45);
        let stored: Vec<u8> = (0..width * height).map(|index| (index % 251) as u8).collect();
        let turned = Orientation::Turn90.apply(stored.clone(), width, height, 1);
        let back = Orientation::Turn270.apply(turned, height, width, 1);
        assert_eq!(back, stored);
    }

    #[test]
    fn values_that_do_not_exist_are_ignored() {
        for value in [0, 9, 1000, u32::MAX] {
            assert_eq!(Orientation::from_exif(value), Orientation::Upright);
        }
    }
}
