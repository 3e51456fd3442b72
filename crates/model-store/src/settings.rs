//! `model.toml`: what a model is for, and how it is to be run.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::Deserialize;
use vision::Recipe;

use crate::chat::Chat;
use crate::embed::Embed;

/// What a model is for, and so by which method it is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Named tensors in and out.
    #[default]
    Tensor,
    /// Pictures to labels.
    Classify,
    /// Texts to vectors.
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most rows in one run.
    pub max_rows: usize,
    /// How long an idle worker waits for company, in milliseconds. 0: not at all, which is best on a CPU.
    pub max_wait_ms: u64,
    /// Batch sizes that are run and measured before the model is ready, and among which the best is chosen when more wait.
    /// Ascending, the last one `max_rows`. Empty: the powers of two up to `max_rows`.
    pub buckets: Vec<usize>,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_rows: 32, max_wait_ms: 0, buckets: Vec::new() }
    }
}

impl Batching {
    /// The batch sizes to be measured, ascending.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        if !self.buckets.is_empty() {
            return self.buckets.clone();
        }
        let doubled = std::iter::successors(Some(1), |rows: &usize| rows.checked_mul(2));
        doubled.take_while(|rows| *rows < self.max_rows).chain([self.max_rows]).collect()
    }

    fn check(&self) -> Result<(), String> {
        in_range("batching.max_rows", self.max_rows, 1, 4096)?;
        in_range("batching.max_wait_ms", self.max_wait_ms, 0, 1000)?;
        let ascend = self.buckets.windows(2).all(|pair| pair[0] < pair[1]);
        let (first, last) = (self.buckets.first(), self.buckets.last());
        if ascend && first.is_none_or(|first| *first >= 1) && last.is_none_or(|last| *last == self.max_rows) {
            return Ok(());
        }
        let (buckets, most) = (&self.buckets, self.max_rows);
        Err(format!(
            "`batching.buckets` is {buckets:?}, allowed are ascending sizes from 1, the last one max_rows ({most})"
        ))
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
    /// The runs before the model is ready must end within this, in milliseconds.
    pub warm_up_ms: u64,
    /// Pixels of one picture, when fewer than the server takes.
    pub pixels: Option<u64>,
    /// Pixels of a picture's longer edge, when fewer than the server takes.
    pub edge: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        // 4,096 rows of 224x224x3 floats are 2.3 GiB: the budget on decoded bytes is reached first for such models.
        Self { queue_rows: 4096, deadline_ms: 10_000, warm_up_ms: 120_000, pixels: None, edge: None }
    }
}

impl Limits {
    /// The default deadline as a duration.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// The limits on one picture: the server's, or the model's where they are lower.
    #[must_use]
    pub fn pictures(&self, server: vision::Limits) -> vision::Limits {
        vision::Limits {
            bytes: server.bytes,
            pixels: self.pixels.map_or(server.pixels, |pixels| pixels.min(server.pixels)),
            edge: self.edge.map_or(server.edge, |edge| edge.min(server.edge)),
        }
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
    /// Threads that share one run on a CPU, 0 for all cores; see [`Settings::intra_threads`].
    pub intra_threads: Option<usize>,
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
    /// How a language model is run.
    pub chat: Chat,
    /// How an embedding model makes a vector of a text.
    pub embed: Embed,
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
            intra_threads: None,
            labels: None,
            warm_up: true,
            batching: None,
            input: None,
            output: Output::default(),
            chat: Chat::default(),
            embed: Embed::default(),
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
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            format!("{place}{}", error.message().replace('\n', " "))
        })?;
        settings.check()?;
        Ok(settings)
    }

    /// Threads that share one run on a CPU, 0 for all cores. When it is not stated: 1, which serves most requests on the same
    /// cores; all for a language model, whose one thread serves every request.
    #[must_use]
    pub fn intra_threads(&self) -> usize {
        self.intra_threads.unwrap_or(usize::from(self.task != Task::Chat))
    }

    fn check(&self) -> Result<(), String> {
        if let Some(batching) = &self.batching {
            batching.check()?;
        }
        in_range("limits.queue_rows", self.limits.queue_rows, 1, 1_000_000)?;
        in_range("limits.deadline_ms", self.limits.deadline_ms, 1, 600_000)?;
        in_range("limits.warm_up_ms", self.limits.warm_up_ms, 1, 3_600_000)?;
        in_range("intra_threads", self.intra_threads(), 0, 256)?;
        self.chat.check()?;
        self.embed.check()?;
        if let Some(instances) = self.instances {
            in_range("instances", instances, 1, 256)?;
        }
        if self.task == Task::Classify && self.input.is_none() {
            return Err(
                "task is \"classify\" and there is no [input] table that says how a picture becomes a row".into()
            );
        }
        Ok(())
    }
}

pub(crate) fn in_range<N: PartialOrd + Display>(key: &str, value: N, low: N, high: N) -> Result<(), String> {
    if (&low..=&high).contains(&&value) {
        return Ok(());
    }
    Err(format!("`{key}` is {value}, allowed is {low} to {high}"))
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
            ("[batching]\nmax_rows = 8\nbuckets = [1, 8, 4]", &["batching.buckets", "[1, 8, 4]", "max_rows (8)"]),
            ("[batching]\nmax_rows = 8\nbuckets = [1, 4]", &["batching.buckets", "max_rows (8)"]),
            ("[limits]\ndeadline_ms = 700000", &["limits.deadline_ms", "700000", "600000"]),
            ("task = \"classify\"", &["[input]"]),
            ("task = \"classify\"\n[input]\nwidth = 28\nheight = 28\nfit = \"squash\"", &["squash", "stretch"]),
            ("instances = -1", &["line 1"]),
            ("[embed]\nmax_tokens = 2", &["`embed.max_tokens` is 2", "3 to 131072"]),
            ("[embed]\npooling = \"max\"", &["line 2", "max", "cls"]),
            ("[chat]\ntop_p = 0", &["`chat.top_p` is 0", "above 0, to 1"]),
            ("[chat]\nrepetition_penalty = nan", &["`chat.repetition_penalty` is NaN", "above 0, to 100"]),
            ("[chat]\ntemperature = 2.5", &["`chat.temperature` is 2.5", "0 to 2"]),
            ("[chat]\nslots = 4", &["line 2", "slots", "kv_bytes"]),
        ] {
            let error = Settings::parse(text).expect_err(text);
            for part in says {
                assert!(error.contains(part), "{text:?} gives {error:?}, which lacks {part:?}");
            }
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn batch_sizes_are_powers_of_two_up_to_the_most_unless_stated() {
        let sizes = |text: &str| Settings::parse(text).expect("good").batching.expect("there").sizes();
        assert_eq!(sizes("[batching]\nmax_rows = 1"), [1]);
        assert_eq!(sizes("[batching]\nmax_rows = 8"), [1, 2, 4, 8]);
        assert_eq!(sizes("[batching]\nmax_rows = 10"), [1, 2, 4, 8, 10]);
        assert_eq!(sizes("[batching]\nmax_rows = 12\nbuckets = [3, 12]"), [3, 12]);
    }

    #[test]
    fn a_model_can_lower_the_servers_limits_on_pictures_and_not_raise_them() {
        let server = vision::Limits::default();
        let settings = Settings::parse("[limits]\npixels = 1000\nedge = 1000000").expect("good");
        let limits = settings.limits.pictures(server);
        assert_eq!((limits.pixels, limits.edge, limits.bytes), (1000, server.edge, server.bytes));
    }
}
