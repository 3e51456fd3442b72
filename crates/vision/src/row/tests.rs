use super::*;

fn recipe(lines: &str) -> Recipe {
    toml::from_str(lines).expect("a good recipe")
}

fn row(recipe: &Recipe, picture: &Picture) -> Vec<f32> {
    let mut row = vec![f32::NAN; recipe.row_elements()];
    recipe.write_row(picture, &mut Scratch::new(), &mut row).expect("a row");
    row
}

fn rgb(width: u32, height: u32, pixels: &[[u8; 3]]) -> Picture {
    Picture::new(width, height, Channels::Rgb, pixels.concat()).expect("fits")
}

const PLAIN: &str = "scale = 1.0\n";

#[test]
fn channels_lie_where_color_and_layout_say() {
    let picture = rgb(2, 1, &[[1, 2, 3], [4, 5, 6]]);
    for (lines, expected) in [
        ("color = 'rgb'\nlayout = 'nchw'", [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ("color = 'bgr'\nlayout = 'nchw'", [3.0, 6.0, 2.0, 5.0, 1.0, 4.0]),
        ("color = 'rgb'\nlayout = 'nhwc'", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("color = 'bgr'\nlayout = 'nhwc'", [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]),
    ] {
        let recipe = recipe(&format!("width = 2\nheight = 1\nfit = 'stretch'\n{PLAIN}{lines}"));
        assert_eq!(row(&recipe, &picture), expected, "{lines}");
    }
}

#[test]
fn mean_and_std_follow_the_order_of_the_row() {
    let picture = rgb(1, 1, &[[10, 20, 30]]);
    let recipe =
        recipe("width = 1\nheight = 1\ncolor = 'bgr'\nscale = 1.0\nmean = [30.0, 10.0, 0.0]\nstd = [1.0, 2.0, 5.0]");
    assert_eq!(row(&recipe, &picture), [0.0, 5.0, 2.0]);
}

#[test]
fn gray_pictures_fill_all_channels_and_colours_become_luma() {
    let gray = Picture::new(2, 1, Channels::Gray, vec![7, 9]).expect("fits");
    let planes = recipe("width = 2\nheight = 1\nfit = 'stretch'\nscale = 1.0");
    assert_eq!(row(&planes, &gray), [7.0, 9.0, 7.0, 9.0, 7.0, 9.0]);
    let side_by_side = recipe("width = 2\nheight = 1\nfit = 'stretch'\nscale = 1.0\nlayout = 'nhwc'");
    assert_eq!(row(&side_by_side, &gray), [7.0, 7.0, 7.0, 9.0, 9.0, 9.0]);
    let luma = recipe("width = 2\nheight = 1\nfit = 'stretch'\nscale = 1.0\ncolor = 'gray'");
    assert_eq!(row(&luma, &rgb(2, 1, &[[255, 0, 0], [9, 9, 9]])), [76.0, 9.0]);
}

#[test]
fn inverting_happens_before_scaling() {
    let picture = rgb(1, 1, &[[0, 55, 255]]);
    let recipe = recipe("width = 1\nheight = 1\ninvert = 'always'\nscale = 1.0\nmean = [5.0]");
    assert_eq!(row(&recipe, &picture), [250.0, 195.0, -5.0]);
}

#[test]
fn padding_is_background_and_crop_is_the_middle() {
    let wide = rgb(4, 2, &[[1; 3], [2; 3], [3; 3], [4; 3], [1; 3], [2; 3], [3; 3], [4; 3]]);
    let pad = recipe("width = 4\nheight = 4\ncolor = 'gray'\nfit = 'pad'\nscale = 1.0\nbackground = [9, 9, 9]");
    assert_eq!(row(&pad, &wide), [9., 9., 9., 9., 1., 2., 3., 4., 1., 2., 3., 4., 9., 9., 9., 9.]);
    let crop = recipe("width = 2\nheight = 2\ncolor = 'gray'\nfit = 'crop'\nscale = 1.0");
    assert_eq!(row(&crop, &wide), [2., 3., 2., 3.]);
}

#[test]
fn extreme_shapes_never_vanish() {
    let mut scratch = Scratch::new();
    for (width, height) in [(1, 20_000), (20_000, 1), (1, 1), (3, 7)] {
        let picture =
            Picture::new(width, height, Channels::Rgb, vec![100; (width * height * 3) as usize]).expect("fits");
        for fit in ["stretch", "crop", "pad"] {
            for filter in ["bilinear", "bicubic", "lanczos3", "nearest", "box"] {
                let lines = format!(
                    "width = 28\nheight = 20\nfit = '{fit}'\nfilter = '{filter}'\nscale = 1.0\nbackground = [100, 100, 100]"
                );
                let recipe = recipe(&lines);
                let mut row = vec![0.0; recipe.row_elements()];
                recipe.write_row(&picture, &mut scratch, &mut row).expect(&lines);
                assert!(row.iter().all(|value| *value == 100.0), "{width}x{height} {lines}");
            }
        }
    }
}

#[test]
fn bytes_of_every_dtype_agree_with_floats() {
    let picture = rgb(2, 1, &[[1, 2, 3], [250, 128, 77]]);
    let lines = "width = 2\nheight = 1\nfit = 'stretch'\nscale = 0.5\nmean = [3.0]\n";
    let floats = row(&recipe(lines), &picture);
    let bytes = |dtype: &str| {
        let recipe = recipe(&format!("{lines}dtype = '{dtype}'"));
        let mut row = vec![0; recipe.row_bytes()];
        recipe.write_row_bytes(&picture, &mut Scratch::new(), &mut row).expect("a row");
        row
    };
    let f32s: Vec<f32> = bytes("f32").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(f32s, floats);
    let f16s: Vec<f32> = bytes("f16").as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect();
    assert_eq!(f16s, floats, "these values are exact in 16 bits");
    let u8s: Vec<f32> = bytes("u8").into_iter().map(f32::from).collect();
    assert_eq!(u8s, floats.iter().map(|value| value.round().clamp(0.0, 255.0)).collect::<Vec<_>>());
}

#[test]
fn a_row_of_the_wrong_length_is_refused() {
    let recipe = recipe("width = 2\nheight = 2");
    let picture = rgb(1, 1, &[[0; 3]]);
    let mut short = vec![0.0; 11];
    let error = recipe.write_row(&picture, &mut Scratch::new(), &mut short).expect_err("short");
    assert_eq!(error, ImageError::WrongRow { expected: 12, actual: 11 });
    assert!(recipe.write_row_bytes(&picture, &mut Scratch::new(), &mut [0; 47]).is_err());
}

#[test]
fn the_centre_rounds_as_python_does() {
    assert_eq!([0, 1, 2, 3, 4, 5, 7].map(half_to_even), [0, 0, 1, 2, 2, 2, 4]);
}
