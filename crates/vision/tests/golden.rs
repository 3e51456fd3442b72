//! Rows agree with those that Pillow and the training code make (`testdata/make_golden.py`).

use serde::Deserialize;
use std::path::Path;
use vision::{Limits, Picture, Recipe, Scratch, Wanted};

#[derive(Deserialize)]
struct Golden {
    golden: String,
    input: String,
    recipe: String,
}

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file)).expect("the file is in the tree")
}

fn decode(encoded: &[u8], wanted: impl FnOnce(&vision::Header) -> Wanted, background: [u8; 3]) -> Picture {
    let header = vision::inspect(encoded, &Limits::default()).expect("a header");
    vision::decode(encoded, &header, &wanted(&header), background).expect("decodes")
}

/// Largest and mean difference of a row's pixels from the golden ones, of 255.
fn difference(golden: &Golden, wanted: impl FnOnce(&Recipe, &vision::Header) -> Wanted) -> (f32, f32) {
    let recipe: Recipe = toml::from_str(&format!("scale = 1.0\nlayout = 'nhwc'\n{}", golden.recipe)).expect("a recipe");
    let picture = decode(&bytes(&golden.input), |header| wanted(&recipe, header), recipe.background());
    let mut row = vec![f32::NAN; recipe.row_elements()];
    recipe.write_row(&picture, &mut Scratch::new(), &mut row).expect("a row");
    let expected = decode(&bytes(&golden.golden), |_| Wanted::EVERYTHING, [0; 3]).pixels;
    assert_eq!(expected.len(), row.len(), "{}", golden.golden);
    let differences: Vec<f32> =
        row.iter().zip(expected).map(|(ours, theirs)| (ours - f32::from(theirs)).abs()).collect();
    let mean = differences.iter().sum::<f32>() / differences.len() as f32;
    (differences.into_iter().fold(0.0, f32::max), mean)
}

fn index() -> Vec<Golden> {
    let index: Vec<Golden> = serde_json::from_slice(&bytes("golden/index.json")).expect("an index");
    assert!(index.len() >= 20, "only {} rows", index.len());
    index
}

/// Fixed-point resampling rounds twice, and JPEG decoders differ by one level. Where a filter overshoots (or the nearest
/// pixel is a tie) the order of the two passes shows, because Pillow clamps after the horizontal and this after the vertical.
fn tolerance(golden: &Golden) -> (f32, f32) {
    let overshoots = ["bicubic", "lanczos3", "nearest"].iter().any(|filter| golden.recipe.contains(filter));
    if overshoots { (4.0, 0.2) } else { (2.0, 0.2) }
}

#[test]
fn rows_of_fully_decoded_pictures_are_those_of_pillow() {
    let mut wrong = Vec::new();
    for golden in index() {
        let (most, mean) = difference(&golden, |_, _| Wanted::EVERYTHING);
        println!("{:36} most {most:5.2} mean {mean:6.3}", golden.golden);
        let allowed = tolerance(&golden);
        if !(most <= allowed.0 && mean <= allowed.1) {
            wrong.push(format!("{}: most {most}, mean {mean}, allowed {allowed:?}", golden.golden));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Decoding at 1/2 or less before resizing: the pixels differ at sharp edges, the mean stays within 2 levels.
#[test]
fn rows_of_scaled_down_pictures_stay_near() {
    for golden in index() {
        let (most, mean) = difference(&golden, Recipe::wanted);
        println!("{:36} most {most:5.2} mean {mean:6.3}", golden.golden);
        assert!(mean <= 2.0, "{}: most {most}, mean {mean}", golden.golden);
    }
}

/// A photograph too small to be decoded at 1/2, whose colours are repeated instead of interpolated: rows hardly change.
#[test]
fn rows_of_photographs_with_coarse_colours_are_those_of_smooth_ones() {
    for (photo, edge) in [("cat", 160), ("coffee", 224), ("coffee", 160)] {
        let recipe: Recipe =
            toml::from_str(&format!("scale = 1.0\nwidth = {edge}\nheight = {edge}")).expect("a recipe");
        let encoded = bytes(&format!("photos/{photo}.jpg"));
        let row = |wanted: fn(&Recipe, &vision::Header) -> Wanted| {
            let picture = decode(&encoded, |header| wanted(&recipe, header), [0; 3]);
            let mut row = vec![f32::NAN; recipe.row_elements()];
            recipe.write_row(&picture, &mut Scratch::new(), &mut row).expect("a row");
            ((picture.width, picture.height), row)
        };
        let ((size, coarse), (whole, smooth)) = (row(Recipe::wanted), row(|_, _| Wanted::EVERYTHING));
        assert_eq!(size, whole, "{photo} to {edge} is not scaled down while decoding");
        let differences = || coarse.iter().zip(&smooth).map(|(coarse, smooth)| (coarse - smooth).abs());
        let (most, mean) = (differences().fold(0.0, f32::max), differences().sum::<f32>() / smooth.len() as f32);
        println!("{photo} to {edge}: most {most:5.2} mean {mean:6.3}");
        assert!(mean > 0.0, "{photo} to {edge}: the colours were interpolated");
        assert!(most <= 16.0 && mean <= 0.5, "{photo} to {edge}: most {most}, mean {mean}");
    }
}

#[test]
fn what_an_earlier_picture_left_in_memory_is_not_seen() {
    let encoded = bytes("photos/coffee.jpg");
    let header = vision::inspect(&encoded, &Limits::default()).expect("a header");
    let fresh = decode(&encoded, |_| Wanted::EVERYTHING, [0; 3]);
    let mut scratch = Scratch::new();
    for (width, height) in [(900, 700), (600, 400), (8, 8)] {
        let pixels = vec![77; width * height * 3];
        let place = pixels.as_ptr();
        let earlier = Picture::new(width as u32, height as u32, vision::Channels::Rgb, pixels).expect("a picture");
        scratch.keep(earlier);
        let again = vision::decode_with(&mut scratch, &encoded, &header, &Wanted::EVERYTHING, [0; 3]).expect("decodes");
        assert!(again == fresh, "after {width}x{height} px");
        assert_eq!(again.pixels.as_ptr() == place, width >= 600, "after {width}x{height} px: the memory is used again");
    }
}
