//! Colours of a picture's ICC profile to sRGB.
//!
//! Promises: a profile that cannot be used is ignored, as viewers do; one that changes nothing (most are sRGB under some
//! name) costs nothing but its first look, because each thread remembers the last profile.

use crate::decode::Samples;
use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A way from a profile's colours to sRGB that is not the identity.
#[derive(Clone)]
pub(crate) enum Conversion {
    /// Pictures in colour.
    Colour { rgb: Arc<Transform8BitExecutor>, rgba: Arc<Transform8BitExecutor> },
    /// Gray pictures: sRGB gray for each of the 256 values.
    Gray(Arc<[u8; 256]>),
}

thread_local! {
    /// The last profile seen, and what it came to. A service mostly sees the pictures of one kind of phone.
    static LAST: RefCell<Option<(Vec<u8>, Option<Conversion>)>> = const { RefCell::new(None) };
}

/// The conversion for a profile, or `None` when it is sRGB already or cannot be used.
pub(crate) fn conversion(profile: &[u8]) -> Option<Conversion> {
    LAST.with_borrow_mut(|last| {
        if let Some((seen, conversion)) = last
            && seen == profile
        {
            return conversion.clone();
        }
        let conversion = catch_unwind(AssertUnwindSafe(|| build(profile))).unwrap_or(None);
        *last = Some((profile.to_vec(), conversion.clone()));
        conversion
    })
}

fn build(profile: &[u8]) -> Option<Conversion> {
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    match profile.color_space {
        DataColorSpace::Rgb => build_colour(&profile),
        DataColorSpace::Gray => build_gray(&profile),
        _ => None,
    }
}

fn build_colour(profile: &ColorProfile) -> Option<Conversion> {
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let rgb = profile.create_transform_8bit(Layout::Rgb, &srgb, Layout::Rgb, options).ok()?;
    // 6 steps a channel, corners included. One level of difference is rounding.
    let probe: Vec<u8> =
        (0..216_u8).flat_map(|index| [index / 36, index / 6 % 6, index % 6].map(|step| step * 51)).collect();
    let mut seen = vec![0; probe.len()];
    rgb.transform(&probe, &mut seen).ok()?;
    if probe.iter().zip(&seen).all(|(before, after)| before.abs_diff(*after) <= 1) {
        return None;
    }
    let rgba = profile.create_transform_8bit(Layout::Rgba, &srgb, Layout::Rgba, options).ok()?;
    Some(Conversion::Colour { rgb, rgba })
}

fn build_gray(profile: &ColorProfile) -> Option<Conversion> {
    let transform = profile
        .create_transform_8bit(Layout::Gray, &ColorProfile::new_srgb(), Layout::Rgb, TransformOptions::default())
        .ok()?;
    let levels: [u8; 256] = std::array::from_fn(|level| level as u8);
    let mut rgb = [0; 768];
    transform.transform(&levels, &mut rgb).ok()?;
    let table: [u8; 256] = std::array::from_fn(|level| rgb[3 * level + 1]);
    if table.iter().zip(levels).all(|(after, before)| after.abs_diff(before) <= 1) {
        return None;
    }
    Some(Conversion::Gray(Arc::new(table)))
}

impl Conversion {
    /// Converts in place. Samples that the profile does not speak of (gray pixels under an RGB profile) stay.
    pub(crate) fn apply(&self, pixels: &mut [u8], samples: Samples) {
        match (self, samples) {
            (Self::Colour { rgb, .. }, Samples::Rgb) => in_blocks(&**rgb, pixels, 3),
            (Self::Colour { rgba, .. }, Samples::Rgba) => in_blocks(&**rgba, pixels, 4),
            (Self::Gray(table), Samples::Gray) => {
                pixels.iter_mut().for_each(|level| *level = table[usize::from(*level)])
            }
            (Self::Gray(table), Samples::GrayAlpha) => {
                pixels.iter_mut().step_by(2).for_each(|level| *level = table[usize::from(*level)]);
            }
            _ => {}
        }
    }
}

/// The library reads one slice and writes another: a block of 4,096 pixels is copied out each time.
fn in_blocks(transform: &Transform8BitExecutor, pixels: &mut [u8], samples: usize) {
    let mut block = vec![0; 4096 * samples];
    for pixels in pixels.chunks_mut(block.len()) {
        let source = &mut block[..pixels.len()];
        source.copy_from_slice(pixels);
        if transform.transform(source, pixels).is_err() {
            pixels.copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srgb_and_rubbish_need_no_conversion() {
        let srgb = ColorProfile::new_srgb().encode().expect("encodes");
        assert!(conversion(&srgb).is_none());
        assert!(conversion(b"").is_none());
        assert!(conversion(&[7; 500]).is_none());
        for length in (0..srgb.len()).step_by(7) {
            let _must_not_panic = conversion(&srgb[..length]);
        }
    }

    #[test]
    fn a_wide_profile_makes_red_redder_and_leaves_alpha_alone() {
        let wide = ColorProfile::new_display_p3().encode().expect("encodes");
        let conversion = conversion(&wide).expect("differs from sRGB");
        let mut rgb = vec![220, 30, 30];
        conversion.apply(&mut rgb, Samples::Rgb);
        assert!(rgb[0] >= 235 && rgb[1] <= 5, "{rgb:?}");
        let mut rgba = vec![220, 30, 30, 77];
        conversion.apply(&mut rgba, Samples::Rgba);
        assert_eq!(rgba[..3], rgb);
        assert_eq!(rgba[3], 77);
    }

    #[test]
    fn blocks_cover_every_pixel() {
        let wide = ColorProfile::new_display_p3().encode().expect("encodes");
        let conversion = conversion(&wide).expect("differs from sRGB");
        let mut pixels = [220, 30, 30].repeat(4096 + 5);
        conversion.apply(&mut pixels, Samples::Rgb);
        assert!(pixels.as_chunks::<3>().0.iter().all(|pixel| *pixel == pixels[..3]));
    }
}
