//! `model.toml`: what a model is for, and how it is to be run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use vision::Recipe;

/// What a model is for, and so by which method it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Named tensors in and out.
    #[default]
    Tensor,
    /// Pictures to labels.
    Classify,
    /// Pictures or texts to vectors.
    Embed,
    /// Pictures to pictures.
    Transform,
    /// Text generation.
    Chat,
}

/// What turns the model's output into scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Exactly one class is right: scores sum to 1.
    #[default]
    Softmax,
    /// Each class for itself.
    Sigmoid,
    /// The output is scores already.
    None,
}

/// How requests share a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most rows in one run.
    pub max_rows: usize,
    /// How long an idle worker waits for company, in milliseconds. 0: not at all, which is best on a CPU.
    pub max_wait_ms: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_rows: 32, max_wait_ms: 0 }
    }
}

/// Where the scores are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// The output with one value for each class; without it, the model's first.
    pub scores: Option<String>,
    /// What makes scores of it.
    pub activation: Activation,
}

/// What one model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Rows that may wait; more are refused as Overloaded.
    pub queue_rows: usize,
    /// A request that names no timeout has this one, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // 4,096 rows of 224x224x3 floats are 2.3 GiB: the budget on decoded bytes is reached first for such models.
        Self { queue_rows: 4096, deadline_ms: 10_000 }
    }
}

impl Limits {
    /// The default deadline as a duration.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// What stands in `model.toml`. A key that is not here is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the model is for.
    pub task: Task,
    /// One line for people.
    pub description: Option<String>,
    /// The licence of the weights.
    pub licence: Option<String>,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Workers; without it one for each core on a CPU, one on a GPU.
    pub instances: Option<usize>,
    /// Threads that share one run on a CPU. 1 serves most requests on the same cores.
    pub intra_threads: usize,
    /// A text file in the folder with one class name a line.
    pub labels: Option<String>,
    /// Run the model once before it counts as ready. `false` only for models that cannot run on zeros.
    pub warm_up: bool,
    /// How requests share a run; a `tensor` model shares only when this table is there.
    pub batching: Option<Batching>,
    /// How a picture becomes a row.
    pub input: Option<Recipe>,
    /// Where the scores are.
    pub output: Output,
    /// What the model may take.
    pub limits: Limits,
    /// Options passed to the CUDA provider as they are.
    pub provider: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            task: Task::Tensor,
            description: None,
            licence: None,
            device: "auto".to_owned(),
            instances: None,
            intra_threads: 1,
            labels: None,
            warm_up: true,
            batching: None,
            input: None,
            output: Output::default(),
            limits: Limits::default(),
            provider: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Reads the text of a `model.toml`.
    ///
    /// # Errors
    /// One line: where, which key, what stands there, what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message().replace('\n', " "))
        })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        let in_range = |key: &str, value: usize, low: usize, high: usize| {
            let good = (low..=high).contains(&value);
            if good { Ok(()) } else { Err(format!("`{key}` is {value}, allowed is {low} to {high}")) }
        };
        let batching = self.batching.unwrap_or_default();
        in_range("batching.max_rows", batching.max_rows, 1, 4096)?;
        in_range("batching.max_wait_ms", batching.max_wait_ms as usize, 0, 1000)?;
        in_range("limits.queue_rows", self.limits.queue_rows, 1, 1_000_000)?;
        in_range("limits.deadline_ms", self.limits.deadline_ms as usize, 1, 600_000)?;
        in_range("intra_threads", self.intra_threads, 0, 256)?;
        if let Some(instances) = self.instances {
            in_range("instances", instances, 1, 256)?;
        }
        if self.task == Task::Classify && self.input.is_none() {
            return Err("task is \"classify\" and there is no [input] table that says how a picture becomes a row".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_tensor_model_with_defaults() {
        let settings = Settings::parse("").expect("all keys have defaults");
        assert_eq!((settings.task, settings.device.as_str(), settings.warm_up), (Task::Tensor, "auto", true));
        assert!(settings.batching.is_none());
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_line_and_what_is_allowed() {
        for (text, says) in [
            ("task = \"classify\"\ncolour = 1", &["line 2", "colour", "description"][..]),
            ("task = \"guess\"", &["line 1", "guess", "classify"]),
            ("[batching]\nmax_rows = 0", &["batching.max_rows", "is 0", "1 to 4096"]),
            ("[limits]\ndeadline_ms = 700000", &["limits.deadline_ms", "700000", "600000"]),
            ("task = \"classify\"", &["[input]"]),
            ("task = \"classify\"\n[input]\nwidth = 28\nheight = 28\nfit = \"squash\"", &["squash", "stretch"]),
            ("instances = -1", &["line 1"]),
        ] {
            let error = Settings::parse(text).expect_err(text);
            for part in says {
                assert!(error.contains(part), "{text:?} gives {error:?}, which lacks {part:?}");
            }
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
