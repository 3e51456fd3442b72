//! An export of the library sentence-transformers: `modules.json` names the steps from a text to a vector, and each step has a
//! file of its own.
//!
//! Promises: steps that are not done here are refused by name; a vector that is made otherwise would look right and find the
//! wrong texts.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::embed::{Embed, Pooling};

/// The steps; a folder without it is no such export.
pub(crate) const MODULES: &str = "modules.json";
/// The longest text.
const LENGTH: &str = "sentence_bert_config.json";
/// The longest text, where the file above does not say.
const TOKENIZER: &str = "tokenizer_config.json";

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Length {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    /// A float where there is no limit: some exports write 1e30.
    model_max_length: Option<f64>,
}

/// How the files say that vectors are made. `file` gives the text of a file of the folder, `None` when it is not there.
///
/// # Errors
/// File, key, value and what is read.
pub(crate) fn read(mut file: impl FnMut(&Path) -> Result<Option<String>, String>) -> Result<Embed, String> {
    let mut embed = Embed { normalise: false, ..Embed::default() };
    let modules = parse::<Vec<Module>>(Path::new(MODULES), file(Path::new(MODULES))?)?.unwrap_or_default();
    for Module { path, kind } in modules {
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => embed.normalise = true,
            "Pooling" => {
                let path = Path::new(&path).join("config.json");
                let modes = parse::<Map<String, Value>>(&path, file(&path)?)?.unwrap_or_default();
                embed.pooling = pooling(&modes).map_err(|reason| format!("{}: {reason}", path.display()))?;
            }
            _ => return Err(format!("{MODULES}: the step `{kind}` is not done here")),
        }
    }
    let length: Length = parse(Path::new(LENGTH), file(Path::new(LENGTH))?)?.unwrap_or_default();
    if length.do_lower_case {
        return Err(format!(
            "{LENGTH}: `do_lower_case` is true, which is not done here: it belongs into the tokenizer"
        ));
    }
    let tokenizer: TokenizerConfig = parse(Path::new(TOKENIZER), file(Path::new(TOKENIZER))?)?.unwrap_or_default();
    let declared =
        tokenizer.model_max_length.filter(|length| *length <= f64::from(u16::MAX)).map(|length| length as usize);
    if let Some(most) = length.max_seq_length.or(declared) {
        embed.max_tokens = most;
    }
    embed.check()?;
    Ok(embed)
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, text: Option<String>) -> Result<Option<T>, String> {
    let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| format!("{}: {error}", path.display()))
}

/// `{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false, ...}`: exactly one is true.
fn pooling(modes: &Map<String, Value>) -> Result<Pooling, String> {
    let chosen = modes.iter().filter(|(key, value)| key.starts_with("pooling_mode") && **value == Value::Bool(true));
    let chosen: Vec<&str> = chosen.map(|(key, _)| key.as_str()).collect();
    match chosen[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        _ => Err(format!(
            "chosen is {}, done here is one of `pooling_mode_mean_tokens` and `pooling_mode_cls_token`",
            if chosen.is_empty() { "nothing".to_owned() } else { chosen.join(" with ") }
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STEPS: &str = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
    const MEAN: &str = r#"{"word_embedding_dimension": 384, "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false}"#;

    fn of(files: &[(&str, &str)]) -> Result<Embed, String> {
        let files: BTreeMap<&Path, &str> = files.iter().map(|(name, text)| (Path::new(*name), *text)).collect();
        read(|path| Ok(files.get(path).map(|text| (*text).to_owned())))
    }

    #[test]
    fn the_files_say_how_a_vector_is_made() {
        let length = (LENGTH, r#"{"max_seq_length": 256, "do_lower_case": false}"#);
        let tokenizer = (TOKENIZER, r#"{"model_max_length": 512}"#);
        let embed = of(&[(MODULES, STEPS), ("1_Pooling/config.json", MEAN), length, tokenizer]).expect("is read");
        assert_eq!(embed, Embed { pooling: Pooling::Mean, normalise: true, max_tokens: 256, output: None });
        let two = STEPS.rsplit_once(',').map(|(two, _)| two).and_then(|two| two.rsplit_once("},")).expect("three");
        let cls = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        let steps = format!("{}}}]", two.0);
        let embed = of(&[(MODULES, &steps), ("1_Pooling/config.json", cls), tokenizer]).expect("is read");
        assert_eq!((embed.pooling, embed.normalise, embed.max_tokens), (Pooling::Cls, false, 512));
        let endless = (TOKENIZER, r#"{"model_max_length": 1000000000000000019884624838656}"#);
        let embed = of(&[(MODULES, &steps), ("1_Pooling/config.json", cls), endless]).expect("is read");
        assert_eq!(embed.max_tokens, Embed::default().max_tokens);
    }

    #[test]
    fn a_step_that_is_not_done_is_refused_by_name() {
        let dense = r#"[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
        assert!(of(&[(MODULES, dense)]).expect_err("dense").contains("models.Dense"));
        for (modes, says) in [
            (r#"{"pooling_mode_max_tokens": true}"#, "pooling_mode_max_tokens"),
            (
                r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}"#,
                " with pooling_mode_mean_tokens",
            ),
            ("{}", "nothing"),
            ("[", "1_Pooling/config.json"),
        ] {
            let error = of(&[(MODULES, STEPS), ("1_Pooling/config.json", modes)]).expect_err(modes);
            assert!(error.contains(says) && error.contains("1_Pooling/config.json"), "{error}");
        }
        let lower = (LENGTH, r#"{"do_lower_case": true}"#);
        assert!(
            of(&[(MODULES, STEPS), ("1_Pooling/config.json", MEAN), lower]).expect_err("lower").contains("do_lower")
        );
        let short = (LENGTH, r#"{"max_seq_length": 2}"#);
        let error = of(&[(MODULES, STEPS), ("1_Pooling/config.json", MEAN), short]).expect_err("short");
        assert!(error.contains("embed.max_tokens") && error.contains("is 2"), "{error}");
    }
}
