//! The `[input]` table of a model: how a picture becomes the row that the model was trained on.
//!
//! Why two types: [`InputTable`] is what was written, [`Recipe`] what was checked, so that nothing is checked per picture.

use crate::header::{Header, Wanted};
use crate::row::Placement;
use crate::subject::ANALYSIS_EDGE;
use serde::Deserialize;
use std::fmt;
use thiserror::Error;

/// Channels of the row, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorOrder {
    /// One channel, luma.
    Gray,
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// Order of the axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channel planes: `[channels, height, width]` (PyTorch).
    #[default]
    Nchw,
    /// Channels side by side: `[height, width, channels]` (TensorFlow).
    Nhwc,
}

/// Element type of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float.
    #[default]
    F32,
    /// 16-bit float.
    F16,
    /// Unsigned byte; values are rounded to nearest and clamped.
    U8,
}

impl Dtype {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// How a picture of another shape fits the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Both edges are resized on their own; the shape is lost.
    Stretch,
    /// The shorter edge is resized to `resize`, then the middle is cut out (torchvision's evaluation).
    #[default]
    Crop,
    /// All of the picture fits in, centred; `background` fills the rest.
    Pad,
}

/// Resampling filter. All but nearest widen when shrinking (antialias), as Pillow's do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    #[default]
    Bilinear,
    /// Catmull-Rom (a = -0.5).
    Bicubic,
    /// Three lobes.
    Lanczos3,
    /// No mixing at all.
    Nearest,
    /// Mean over the area.
    Box,
}

/// Whether light and dark change places (for models trained light on dark).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Invert {
    /// Pixels stay.
    #[default]
    Never,
    /// Pixels become 255 minus themselves.
    Always,
    /// A dark subject on a light background becomes light on black, the background's shading removed; other pictures stay.
    /// Needs `color = "gray"`. The steps stand in `models/train/PREPROCESS.md`.
    Auto,
}

/// Whether the empty border around the subject is cut away before fitting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trim {
    /// The whole picture counts.
    #[default]
    Never,
    /// With `invert = "auto"`: a subject on a light background is cut out and framed with `trim_margin`.
    Auto,
}

/// What stands in `[input]` of `model.toml`. Keys that are not here are an error.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputTable {
    /// The model input that takes the rows; without it, its only input.
    #[serde(default)]
    pub name: Option<String>,
    /// Pixels in a row of the tensor.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Channels of the tensor, in their order.
    #[serde(default)]
    pub color: ColorOrder,
    /// Order of the axes.
    #[serde(default)]
    pub layout: Layout,
    /// Element type.
    #[serde(default)]
    pub dtype: Dtype,
    /// What happens to pictures of another shape.
    #[serde(default)]
    pub fit: Fit,
    /// With `fit = "crop"`: the shorter edge, in pixels, before the middle is cut out. Default: the larger of width and height.
    #[serde(default)]
    pub resize: Option<u32>,
    /// Resampling filter.
    #[serde(default)]
    pub filter: Filter,
    /// Each value is `(pixel * scale - mean) / std`, `pixel` from 0 to 255. Default: 1/255, or 1 with `dtype = "u8"`.
    #[serde(default)]
    pub scale: Option<f64>,
    /// One number, or one for each channel in the order of `color`. Default: 0.
    #[serde(default)]
    pub mean: Vec<f64>,
    /// As `mean`, none of them 0. Default: 1.
    #[serde(default)]
    pub std: Vec<f64>,
    /// Whether light and dark change places.
    #[serde(default)]
    pub invert: Invert,
    /// Whether empty borders are cut away.
    #[serde(default)]
    pub trim: Trim,
    /// With `trim = "auto"`: empty border kept on each side, as a share of the longer edge of the subject.
    /// Default: 0.
    #[serde(default)]
    pub trim_margin: Option<f64>,
    /// Red, green, blue: behind transparent pixels and, with `fit = "pad"`, around the picture. Default: white.
    #[serde(default)]
    pub background: Option<[u8; 3]>,
}

impl InputTable {
    /// A table with defaults for everything but the size.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            name: None,
            width,
            height,
            color: ColorOrder::default(),
            layout: Layout::default(),
            dtype: Dtype::default(),
            fit: Fit::default(),
            resize: None,
            filter: Filter::default(),
            scale: None,
            mean: Vec::new(),
            std: Vec::new(),
            invert: Invert::default(),
            trim: Trim::default(),
            trim_margin: None,
            background: None,
        }
    }
}

/// A value of `[input]` that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`input.{key}` is {value}, allowed is {allowed}")]
pub struct RecipeError {
    /// The key.
    pub key: &'static str,
    /// What stands there.
    pub value: String,
    /// What may stand there.
    pub allowed: String,
}

/// A checked [`InputTable`].
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "InputTable")]
pub struct Recipe {
    table: InputTable,
    /// For each channel of the row, the value of each of the 256 pixel levels.
    pub(crate) levels: Vec<[f32; 256]>,
}

/// A JPEG is decoded to no less than this many times the size that it is resized to: scaling in the DCT is not the filter
/// that the model was trained with. On the photograph of a cat in `tests/golden.rs`, down to the very size moves pixels by 2.2
/// levels in the mean and 20 at most; with this gap by 1.5 and 15, on smoother pictures by 0.4 and 6.
const DECODE_GAP: u32 = 2;

/// Above this, one row would be larger than the largest picture that is taken.
const MAX_EDGE: u32 = 8192;

fn check(good: bool, key: &'static str, value: impl fmt::Debug, allowed: impl Into<String>) -> Result<(), RecipeError> {
    if good { Ok(()) } else { Err(RecipeError { key, value: format!("{value:?}"), allowed: allowed.into() }) }
}

impl TryFrom<InputTable> for Recipe {
    type Error = RecipeError;

    fn try_from(table: InputTable) -> Result<Self, RecipeError> {
        let channels = if table.color == ColorOrder::Gray { 1 } else { 3 };
        let edges = format!("1 to {MAX_EDGE}");
        check((1..=MAX_EDGE).contains(&table.width), "width", table.width, edges.as_str())?;
        check((1..=MAX_EDGE).contains(&table.height), "height", table.height, edges.as_str())?;
        let larger = table.width.max(table.height);
        if let Some(resize) = table.resize {
            check(table.fit == Fit::Crop, "resize", resize, "absent unless fit = \"crop\"")?;
            check((larger..=MAX_EDGE).contains(&resize), "resize", resize, format!("{larger} to {MAX_EDGE}"))?;
        }
        let lengths = if channels == 1 { "1 number".to_owned() } else { format!("1 number or {channels}") };
        for (key, list) in [("mean", &table.mean), ("std", &table.std)] {
            check(matches!(list.len(), 0 | 1) || list.len() == channels, key, list, lengths.as_str())?;
            check(list.iter().all(|value| value.is_finite()), key, list, "finite")?;
        }
        check(table.std.iter().all(|std| *std != 0.0), "std", &table.std, "other than 0")?;
        let scale = table.scale.unwrap_or(if table.dtype == Dtype::U8 { 1.0 } else { 1.0 / 255.0 });
        check(scale.is_finite() && scale != 0.0, "scale", scale, "finite and other than 0")?;
        let may_be_auto = table.invert != Invert::Auto || table.color == ColorOrder::Gray;
        check(may_be_auto, "invert", "auto", "never or always unless color = \"gray\"")?;
        let may_trim = table.trim == Trim::Never || table.invert == Invert::Auto;
        check(may_trim, "trim", "auto", "never unless invert = \"auto\"")?;
        if let Some(margin) = table.trim_margin {
            check(table.trim == Trim::Auto, "trim_margin", margin, "absent unless trim = \"auto\"")?;
            check((0.0..=4.0).contains(&margin), "trim_margin", margin, "0 to 4")?;
        }
        let of = |list: &[f64], channel: usize, absent: f64| match list {
            [] => absent,
            [one] => *one,
            each => each[channel],
        };
        let levels = (0..channels)
            .map(|channel| {
                let (mean, std) = (of(&table.mean, channel, 0.0), of(&table.std, channel, 1.0));
                std::array::from_fn(|level| ((level as f64 * scale - mean) / std) as f32)
            })
            .collect();
        Ok(Self { table, levels })
    }
}

impl Recipe {
    /// The table that this was made from.
    #[must_use]
    pub fn table(&self) -> &InputTable {
        &self.table
    }

    /// What transparent pixels are laid on: red, green, blue.
    #[must_use]
    pub fn background(&self) -> [u8; 3] {
        self.table.background.unwrap_or([255; 3])
    }

    pub(crate) fn channels(&self) -> usize {
        self.levels.len()
    }

    /// Elements of one row.
    #[must_use]
    pub fn row_elements(&self) -> usize {
        self.table.width as usize * self.table.height as usize * self.channels()
    }

    /// Bytes of one row in the recipe's dtype.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.row_elements() * self.table.dtype.bytes()
    }

    /// Shape of one row, without the batch axis: `[channels, height, width]` or `[height, width, channels]`.
    #[must_use]
    pub fn row_shape(&self) -> [usize; 3] {
        let (width, height) = (self.table.width as usize, self.table.height as usize);
        match self.table.layout {
            Layout::Nchw => [self.channels(), height, width],
            Layout::Nhwc => [height, width, self.channels()],
        }
    }

    /// What has to be decoded of a picture for this recipe.
    #[must_use]
    pub fn wanted(&self, header: &Header) -> Wanted {
        let gray = self.table.color == ColorOrder::Gray;
        let (width, height) = Placement::resized(&self.table, header.width, header.height);
        let (width, height) = (width.saturating_mul(DECODE_GAP), height.saturating_mul(DECODE_GAP));
        if self.table.invert != Invert::Auto {
            return Wanted { min_width: width, min_height: height, gray };
        }
        // The subject may be a small part, found in a copy of `ANALYSIS_EDGE`: four times that, so that it makes no difference
        // (under one level) whether the copy was made from the full picture.
        let (enough, longest) = (u64::from(4 * ANALYSIS_EDGE), u64::from(header.width.max(header.height)));
        let scaled = |edge: u32| (u64::from(edge) * enough).div_ceil(longest).min(u64::from(edge)) as u32;
        Wanted { min_width: width.max(scaled(header.width)), min_height: height.max(scaled(header.height)), gray }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn two_numbers_are_enough() {
        let recipe = parse("width = 224\nheight = 200").expect("parses");
        assert_eq!(recipe.row_shape(), [3, 200, 224]);
        assert_eq!(recipe.row_elements(), 3 * 200 * 224);
        assert_eq!(recipe.row_bytes(), recipe.row_elements() * 4);
        assert_eq!(recipe.background(), [255; 3]);
        assert_eq!(recipe.levels[0][255], 1.0);
    }

    #[test]
    fn every_key_is_taken() {
        let text = r#"
            name = "pixel_values"
            width = 28
            height = 32
            color = "gray"
            layout = "nhwc"
            dtype = "f16"
            fit = "crop"
            resize = 40
            filter = "lanczos3"
            scale = 1.0
            mean = [2.0]
            std = [2.0]
            invert = "auto"
            trim = "auto"
            trim_margin = 0.25
            background = [1, 2, 3]
        "#;
        let recipe = parse(text).expect("parses");
        assert_eq!(recipe.row_shape(), [32, 28, 1]);
        assert_eq!(recipe.row_bytes(), 28 * 32 * 2);
        assert_eq!(recipe.levels[0][10], 4.0);
        assert_eq!(recipe.table().name.as_deref(), Some("pixel_values"));
    }

    #[test]
    fn what_cannot_be_is_named_with_what_can() {
        for (line, says) in [
            ("colour = 'rgb'", "unknown field `colour`"),
            ("color = 'hsv'", "unknown variant `hsv`"),
            ("fit = 'pad'\nresize = 300", "`input.resize` is 300, allowed is absent unless fit"),
            ("resize = 100", "`input.resize` is 100, allowed is 224 to 8192"),
            ("mean = [1.0, 2.0]", "`input.mean` is [1.0, 2.0], allowed is 1 number or 3"),
            ("std = [0.0]", "`input.std` is [0.0], allowed is other than 0"),
            ("scale = nan", "`input.scale` is NaN"),
            ("trim_margin = 0.1", "`input.trim_margin` is 0.1"),
            ("invert = 'auto'", "`input.invert` is \"auto\", allowed is never or always unless color"),
            ("color = 'gray'\ntrim = 'auto'", "`input.trim` is \"auto\", allowed is never unless invert"),
            ("background = [1, 2, 300]", "300"),
        ] {
            let error = parse(&format!("width = 224\nheight = 224\n{line}")).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
        assert!(parse("width = 0\nheight = 1").expect_err("zero").contains("`input.width` is 0, allowed is 1 to 8192"));
    }

    #[test]
    fn bytes_keep_their_value_unless_told_otherwise() {
        let recipe = parse("width = 1\nheight = 1\ndtype = 'u8'").expect("parses");
        assert_eq!(recipe.levels[0][200], 200.0);
    }
}
