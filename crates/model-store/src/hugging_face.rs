//! A Hugging Face export as a model: `config.json`, `preprocessor_config.json`, `onnx/model.onnx`.
//!
//! Promises: what the files say about a picture classifier is followed to the letter or refused by name; a guess would give
//! answers that look right and are not. Every other export is served as plain tensors.
//! Not here: tokenizers and text (`generate`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use vision::{ColorOrder, Filter, Fit, InputTable, Recipe};

use crate::chat::Chat;
use crate::settings::{Activation, Output, Settings, Task};

/// The model file of an export, below its folder.
pub(crate) const MODEL: &str = "onnx/model.onnx";
/// What the model is.
pub(crate) const CONFIG: &str = "config.json";
/// How a picture becomes a row.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";
/// How the makers of a language model want it to be asked.
pub(crate) const GENERATION: &str = "generation_config.json";
/// How a text becomes tokens.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    id2label: Option<BTreeMap<String, String>>,
    #[serde(default)]
    num_channels: Option<u32>,
    #[serde(default)]
    problem_type: Option<String>,
}

/// What stands in `preprocessor_config.json`, as far as it changes pixels. The library that writes it leaves steps out by
/// `do_... = false` and by `null`.
#[derive(Deserialize)]
struct Preprocessor {
    #[serde(default = "yes")]
    do_resize: Option<bool>,
    #[serde(default)]
    size: Option<Value>,
    #[serde(default)]
    resample: Option<u32>,
    #[serde(default)]
    do_center_crop: Option<bool>,
    #[serde(default)]
    crop_size: Option<Value>,
    #[serde(default)]
    crop_pct: Option<f64>,
    #[serde(default = "yes")]
    do_rescale: Option<bool>,
    #[serde(default)]
    rescale_factor: Option<f64>,
    #[serde(default = "yes")]
    do_normalize: Option<bool>,
    #[serde(default)]
    image_mean: Option<Vec<f64>>,
    #[serde(default)]
    image_std: Option<Vec<f64>>,
}

fn yes() -> Option<bool> {
    Some(true)
}

/// The settings and labels that the files mean. A language model is known by its class and needs its tokenizer beside it.
///
/// # Errors
/// File, key, value and what is read.
pub(crate) fn read(
    config: &str,
    preprocessor: Option<&str>,
    has_tokenizer: bool,
) -> Result<(Settings, Vec<String>), String> {
    let config: Config = serde_json::from_str(config).map_err(|error| format!("{CONFIG}: {error}"))?;
    let speaks = config.architectures.iter().flatten().any(|name| name.ends_with("ForCausalLM"));
    if speaks && has_tokenizer {
        return Ok((Settings { task: Task::Chat, ..Settings::default() }, Vec::new()));
    }
    let classifies = config.architectures.iter().flatten().any(|name| name.ends_with("ForImageClassification"));
    let (Some(text), true) = (preprocessor, classifies) else {
        return Ok((Settings::default(), Vec::new()));
    };
    let preprocessor: Preprocessor = serde_json::from_str(text).map_err(|error| format!("{PREPROCESSOR}: {error}"))?;
    let table = input(&preprocessor, config.num_channels).map_err(|reason| format!("{PREPROCESSOR}: {reason}"))?;
    let input = Recipe::try_from(table).map_err(|error| format!("{PREPROCESSOR}: {error}"))?;
    let several = config.problem_type.as_deref() == Some("multi_label_classification");
    let activation = if several { Activation::Sigmoid } else { Activation::Softmax };
    let settings = Settings {
        task: Task::Classify,
        description: None,
        input: Some(input),
        output: Output { scores: Some("logits".to_owned()), activation },
        ..Settings::default()
    };
    Ok((settings, labels(config.id2label.unwrap_or_default())?))
}

/// The most tokens that a language model was trained for, when the file says.
///
/// # Errors
/// When the file is not JSON, or the number is none.
pub(crate) fn trained_context(config: &str) -> Result<Option<usize>, String> {
    #[derive(Deserialize)]
    struct Length {
        #[serde(default)]
        max_position_embeddings: Option<usize>,
    }
    let length: Length = serde_json::from_str(config).map_err(|error| format!("{CONFIG}: {error}"))?;
    Ok(length.max_position_embeddings)
}

/// What `generation_config.json` says of sampling, which is what the model's makers recommend. Null and absent mean the default.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

/// A language model's settings by the recommendation of its makers.
///
/// # Errors
/// File, key, value and what is allowed.
pub(crate) fn recommended(generation: &str) -> Result<Chat, String> {
    let from: Generation = serde_json::from_str(generation).map_err(|error| format!("{GENERATION}: {error}"))?;
    let default = Chat::default();
    let chat = Chat {
        temperature: from.temperature.unwrap_or(default.temperature),
        top_p: from.top_p.unwrap_or(default.top_p),
        top_k: from.top_k.unwrap_or(default.top_k),
        min_p: from.min_p.unwrap_or(default.min_p),
        repetition_penalty: from.repetition_penalty.unwrap_or(default.repetition_penalty),
        ..default
    };
    chat.check().map_err(|reason| format!("{GENERATION}: {reason}"))?;
    Ok(chat)
}

/// `{"0": "cat", "1": "dog"}`: every index from 0 without a gap.
fn labels(names: BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let count = names.len();
    let mut labels = vec![None; count];
    for (index, name) in names {
        let place = index.parse().ok().and_then(|at: usize| labels.get_mut(at));
        let place = place.ok_or_else(|| {
            format!("{CONFIG}: `id2label` has the index {index:?}, allowed are 0 to {}", count.saturating_sub(1))
        })?;
        *place = Some(name);
    }
    labels.into_iter().collect::<Option<_>>().ok_or_else(|| format!("{CONFIG}: `id2label` has an index twice"))
}

fn input(from: &Preprocessor, channels: Option<u32>) -> Result<InputTable, String> {
    let resizes = from.do_resize.unwrap_or(true);
    let size = from.size.as_ref().filter(|_| resizes).map(|size| Size::read("size", size)).transpose()?;
    // ConvNeXT writes `crop_pct` and leaves `do_center_crop` out: below 384 px the edge is enlarged by it, then cut.
    if let (Some(share), Some(Size::Shortest(edge))) = (from.crop_pct, size) {
        if edge >= 384 {
            return finish(InputTable { fit: Fit::Stretch, ..InputTable::new(edge, edge) }, from, channels);
        }
        let resize = (f64::from(edge) / share).floor();
        if !(1.0..=f64::from(u16::MAX)).contains(&resize) {
            return Err(format!("`crop_pct` is {share}, allowed is a share from 0 to 1"));
        }
        let table = InputTable { fit: Fit::Crop, resize: Some(resize as u32), ..InputTable::new(edge, edge) };
        return finish(table, from, channels);
    }
    let crop = from.crop_size.as_ref().filter(|_| from.do_center_crop.unwrap_or(false));
    let crop = crop.map(|crop| Size::read("crop_size", crop)).transpose()?;
    let table = match (size, crop) {
        (Some(Size::Shortest(edge)), Some(Size::Exact(width, height))) => {
            InputTable { fit: Fit::Crop, resize: Some(edge), ..InputTable::new(width, height) }
        }
        (Some(Size::Exact(width, height)), None) => InputTable { fit: Fit::Stretch, ..InputTable::new(width, height) },
        // To a square, and nothing is left to cut.
        (Some(Size::Exact(width, height)), Some(Size::Exact(cut, high))) if (width, height) == (cut, high) => {
            InputTable { fit: Fit::Stretch, ..InputTable::new(width, height) }
        }
        _ => {
            return Err(format!(
                "`size` {} with `crop_size` {} is not read: write a model.toml with an [input] table",
                from.size.as_ref().map_or("absent".to_owned(), Value::to_string),
                from.crop_size.as_ref().map_or("absent".to_owned(), Value::to_string),
            ));
        }
    };
    finish(table, from, channels)
}

fn finish(table: InputTable, from: &Preprocessor, channels: Option<u32>) -> Result<InputTable, String> {
    // The numbers are Pillow's.
    let filter = match from.resample.unwrap_or(2) {
        0 => Filter::Nearest,
        1 => Filter::Lanczos3,
        2 => Filter::Bilinear,
        3 => Filter::Bicubic,
        4 => Filter::Box,
        other => return Err(format!("`resample` is {other}, read are 0 to 4")),
    };
    let color = match channels.unwrap_or(3) {
        1 => ColorOrder::Gray,
        3 => ColorOrder::Rgb,
        other => return Err(format!("`num_channels` of {CONFIG} is {other}, read are 1 and 3")),
    };
    let scale = match from.do_rescale.unwrap_or(true) {
        true => from.rescale_factor.unwrap_or(1.0 / 255.0),
        false => 1.0,
    };
    let normalizes = from.do_normalize.unwrap_or(true);
    let of = |list: &Option<Vec<f64>>| list.clone().filter(|_| normalizes).unwrap_or_default();
    Ok(InputTable {
        name: Some("pixel_values".to_owned()),
        color,
        filter,
        scale: Some(scale),
        mean: of(&from.image_mean),
        std: of(&from.image_std),
        ..table
    })
}

/// A size as it may be written: `224`, `{"shortest_edge": 224}`, `{"height": 224, "width": 224}`.
#[derive(Clone, Copy)]
enum Size {
    Shortest(u32),
    Exact(u32, u32),
}

impl Size {
    fn read(key: &str, value: &Value) -> Result<Self, String> {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|edge| u32::try_from(edge).ok());
        let wrong =
            || format!("`{key}` is {value}, read are a number, {{\"shortest_edge\"}} and {{\"height\", \"width\"}}");
        if let Some(edge) = number(Some(value)) {
            // A bare number means a square where pictures are cut, and the shorter edge where they are resized.
            return Ok(if key == "crop_size" { Self::Exact(edge, edge) } else { Self::Shortest(edge) });
        }
        let parts = (number(value.get("shortest_edge")), number(value.get("width")), number(value.get("height")));
        match parts {
            (Some(edge), None, None) => Ok(Self::Shortest(edge)),
            (None, Some(width), Some(height)) => Ok(Self::Exact(width, height)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAT_OR_DOG: &str = r#"{"architectures": ["ViTForImageClassification"], "num_channels": 3,
        "id2label": {"1": "dog", "0": "cat"}, "hidden_size": 192}"#;

    fn table(preprocessor: &str) -> Result<InputTable, String> {
        let (settings, _) = read(CAT_OR_DOG, Some(preprocessor), false)?;
        Ok(settings.input.expect("a classifier has an input").table().clone())
    }

    #[test]
    fn a_vision_transformer_is_stretched_and_normalised() {
        let text = r#"{"do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 224, "width": 224}}"#;
        let table = table(text).expect("is read");
        assert_eq!((table.fit, table.width, table.height, table.filter), (Fit::Stretch, 224, 224, Filter::Bilinear));
        assert_eq!((table.mean, table.std), (vec![0.5; 3], vec![0.5; 3]));
        assert_eq!((table.name.as_deref(), table.color), (Some("pixel_values"), ColorOrder::Rgb));
        let (settings, labels) = read(CAT_OR_DOG, Some(text), false).expect("is read");
        assert_eq!((settings.task, settings.output.scores.as_deref()), (Task::Classify, Some("logits")));
        assert_eq!(labels, ["cat", "dog"]);
    }

    #[test]
    fn a_residual_net_is_resized_and_cut() {
        let text = r#"{"size": {"shortest_edge": 256}, "do_center_crop": true, "resample": 3,
            "crop_size": {"height": 224, "width": 224}, "do_normalize": false}"#;
        let table = table(text).expect("is read");
        assert_eq!((table.fit, table.resize, table.width), (Fit::Crop, Some(256), 224));
        assert_eq!((table.filter, table.mean), (Filter::Bicubic, Vec::new()));
    }

    #[test]
    fn a_crop_share_enlarges_what_is_cut() {
        let table = table(r#"{"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}"#).expect("is read");
        assert_eq!((table.fit, table.resize, table.width), (Fit::Crop, Some(256), 224));
    }

    #[test]
    fn what_is_not_followed_to_the_letter_is_refused_by_name() {
        for (text, says) in [
            (r#"{"size": {"longest_edge": 224}}"#, "`size`"),
            (r#"{"size": {"shortest_edge": 224}}"#, "`crop_size` absent"),
            (r#"{"size": {"height": 256, "width": 256}, "do_center_crop": true, "crop_size": 224}"#, "model.toml"),
            (r#"{"size": {"height": 224, "width": 224}, "resample": 5}"#, "`resample` is 5"),
            (r#"{"size": {"height": 224, "width": 224}, "image_std": [0.5, 0.0, 0.5]}"#, "input.std"),
            (r#"{"size": {"shortest_edge": 224}, "crop_pct": 0}"#, "`crop_pct` is 0"),
            ("[", PREPROCESSOR),
        ] {
            let error = table(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        let gap = r#"{"architectures": ["XForImageClassification"], "id2label": {"0": "a", "2": "b"}}"#;
        let error = read(gap, Some(r#"{"size": {"height": 8, "width": 8}}"#), false).expect_err("a gap");
        assert!(error.contains("`id2label`") && error.contains("0 to 1"), "{error}");
    }

    #[test]
    fn other_exports_are_plain_tensors() {
        let (settings, labels) = read(r#"{"architectures": ["BertModel"]}"#, None, true).expect("is read");
        assert_eq!((settings.task, labels.len()), (Task::Tensor, 0));
        let (settings, _) = read(r#"{"architectures": ["LlamaForCausalLM"]}"#, None, false).expect("is read");
        assert_eq!(settings.task, Task::Tensor, "nothing makes tokens of a text");
    }

    #[test]
    fn a_language_model_with_a_tokenizer_chats() {
        let config = r#"{"architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 4096}"#;
        let (settings, _) = read(config, None, true).expect("is read");
        assert_eq!((settings.task, settings.intra_threads()), (Task::Chat, 0));
        assert_eq!(trained_context(config), Ok(Some(4096)));
        assert_eq!(trained_context("{}"), Ok(None));
        let recommended = recommended(r#"{"do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": null}"#);
        assert_eq!(recommended, Ok(Chat { temperature: 0.7, top_k: 20, ..Chat::default() }));
        let error = super::recommended(r#"{"temperature": 7}"#).expect_err("out of range");
        assert_eq!(error, "generation_config.json: `chat.temperature` is 7, allowed is 0 to 2");
        assert!(trained_context(r#"{"max_position_embeddings": -1}"#).expect_err("no length").contains(CONFIG));
    }
}
