//! Turns what decoders give (16 bit, alpha, ink) into opaque 8-bit gray or RGB, in the same buffer.
//!
//! Why in place: a picture of 64 million pixels is 192 MB; a copy for each step would be the larger part of the budget.

/// Luma of coded sRGB values, in the fixed-point numbers of Pillow's `convert("L")`, so that rows agree with training code.
#[must_use]
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// `colour` over `below` with `alpha`/255 of cover, rounded to nearest.
#[must_use]
pub(crate) fn over(colour: u8, alpha: u8, below: u8) -> u8 {
    let sum = u32::from(colour) * u32::from(alpha) + u32::from(below) * u32::from(255 - alpha) + 128;
    (((sum >> 8) + sum) >> 8) as u8
}

/// Native 16-bit samples to 8-bit ones, rounded to nearest: 65,535 becomes 255 and 257 becomes 1.
pub(crate) fn narrow_16(samples: &mut Vec<u8>, read: fn([u8; 2]) -> u16) {
    let count = samples.len() / 2;
    for index in 0..count {
        let wide = read([samples[2 * index], samples[2 * index + 1]]);
        samples[index] = ((u32::from(wide) + 128) / 257) as u8;
    }
    samples.truncate(count);
}

/// Native 32-bit float samples, 0.0 to 1.0, to 8-bit ones; what is outside (or no number) is clamped.
pub(crate) fn narrow_f32(samples: &mut Vec<u8>) {
    let count = samples.len() / 4;
    for index in 0..count {
        let at = 4 * index;
        let wide = f32::from_ne_bytes([samples[at], samples[at + 1], samples[at + 2], samples[at + 3]]);
        samples[index] = (wide.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
    }
    samples.truncate(count);
}

/// Rewrites each `FROM` bytes as `TO` bytes, `TO` not more than `FROM`.
fn shrink<const FROM: usize, const TO: usize>(pixels: &mut Vec<u8>, turn: impl Fn([u8; FROM]) -> [u8; TO]) {
    let count = pixels.len() / FROM;
    for index in 0..count {
        let mut pixel = [0; FROM];
        pixel.copy_from_slice(&pixels[index * FROM..][..FROM]);
        pixels[index * TO..][..TO].copy_from_slice(&turn(pixel));
    }
    pixels.truncate(count * TO);
}

/// RGB with alpha onto a background.
pub(crate) fn flatten_rgba(pixels: &mut Vec<u8>, below: [u8; 3]) {
    shrink::<4, 3>(pixels, |[red, green, blue, alpha]| match alpha {
        255 => [red, green, blue],
        _ => [over(red, alpha, below[0]), over(green, alpha, below[1]), over(blue, alpha, below[2])],
    });
}

/// Gray with alpha onto a gray background.
pub(crate) fn flatten_gray(pixels: &mut Vec<u8>, below: u8) {
    shrink::<2, 1>(pixels, |[gray, alpha]| [over(gray, alpha, below)]);
}

/// Gray with alpha onto a coloured background: the one case that grows.
pub(crate) fn flatten_gray_on_colour(pixels: &[u8], below: [u8; 3]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() / 2 * 3);
    for &[gray, alpha] in pixels.as_chunks::<2>().0 {
        rgb.extend(below.map(|below| over(gray, alpha, below)));
    }
    rgb
}

/// RGB to luma.
pub(crate) fn rgb_to_gray(pixels: &mut Vec<u8>) {
    shrink::<3, 1>(pixels, |rgb| [luma(rgb)]);
}

/// Ink coverage to RGB. `inverted`: 255 means no ink, as Adobe's programs store it.
pub(crate) fn cmyk_to_rgb(pixels: &mut Vec<u8>, inverted: bool) {
    let flip = if inverted { 0 } else { 255 };
    shrink::<4, 3>(pixels, |inks| {
        let [cyan, magenta, yellow, black] = inks.map(|ink| ink ^ flip);
        [cyan, magenta, yellow].map(|paper| over(paper, black, 0))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_round_and_do_not_wrap() {
        for (wide, narrow) in [(0_u16, 0_u8), (128, 0), (129, 1), (257, 1), (32_768, 128), (65_279, 254), (65_535, 255)]
        {
            let mut samples = wide.to_be_bytes().to_vec();
            narrow_16(&mut samples, u16::from_be_bytes);
            assert_eq!(samples, [narrow], "{wide}");
        }
    }

    #[test]
    fn floats_are_clamped() {
        let values = [0.0_f32, 0.5, 1.0, 7.0, -1.0, f32::NAN, f32::INFINITY];
        let mut samples = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        narrow_f32(&mut samples);
        assert_eq!(samples, [0, 128, 255, 255, 0, 0, 255]);
    }

    #[test]
    fn clear_pixels_show_the_background_and_opaque_ones_do_not() {
        let mut pixels = vec![220, 30, 30, 0, 220, 30, 30, 255, 200, 100, 0, 128];
        flatten_rgba(&mut pixels, [255, 255, 255]);
        assert_eq!(pixels, [255, 255, 255, 220, 30, 30, 227, 177, 127]);
        let mut gray = vec![10, 0, 10, 255];
        flatten_gray(&mut gray, 255);
        assert_eq!(gray, [255, 10]);
        assert_eq!(flatten_gray_on_colour(&[10, 0, 10, 255], [1, 2, 3]), [1, 2, 3, 10, 10, 10]);
    }

    #[test]
    fn over_is_the_rounded_quotient_for_all_values() {
        for colour in 0..=255_u8 {
            for alpha in 0..=255_u8 {
                let exact = f64::from(colour) * f64::from(alpha) / 255.0 + 77.0 * f64::from(255 - alpha) / 255.0;
                assert!((f64::from(over(colour, alpha, 77)) - exact).abs() <= 0.5 + 1e-9, "{colour} {alpha}");
            }
        }
    }

    #[test]
    fn inks_of_both_conventions_give_the_same_colours() {
        let mut adobe = vec![255, 0, 0, 255, 255, 255, 255, 0];
        cmyk_to_rgb(&mut adobe, true);
        assert_eq!(adobe, [255, 0, 0, 0, 0, 0]);
        let mut plain = vec![0, 255, 255, 0, 0, 0, 0, 255];
        cmyk_to_rgb(&mut plain, false);
        assert_eq!(plain, [255, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn luma_keeps_gray_and_weighs_colours() {
        for value in 0..=255 {
            assert_eq!(luma([value; 3]), value);
        }
        assert_eq!([luma([255, 0, 0]), luma([0, 255, 0]), luma([0, 0, 255])], [76, 150, 29]);
    }
}
