//! An engine over the small models of `crates/runtime/testdata`, and ears for what happens inside.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{CallScope, ClassifyOptions, Engine, Event, Inferred, Model, Observe, Phase, Ran, Settings, State};
use fault::Fault;
use runtime::{LibraryChoice, Runtime, Tensor, VERSION};
use tempfile::TempDir;
use tokio::sync::mpsc;
use units::{Deadline, TraceParent};
use vision::{Channels, Picture};

/// The CPU build in the cache folder, so that tests are the same on all machines.
pub(crate) fn library() -> &'static Runtime {
    let cache = runtime::cache_folder().expect("HOME is set");
    let choice = LibraryChoice::At(cache.join(format!("onnxruntime/{VERSION}-cpu")));
    // The message says to run scripts/onnxruntime cpu.
    Runtime::load(&choice).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/testdata").join(format!("{name}.onnx"))
}

/// A copy of a tiny language model in `place`, with this `model.toml`.
pub(crate) fn chat_model(place: &Path, name: &str, toml: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../generate/testdata").join(name);
    fs::create_dir_all(place.join("onnx")).expect("a folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model.onnx_data"] {
        fs::copy(from.join(file), place.join(file)).expect("a copy");
    }
    fs::write(place.join("model.toml"), toml).expect("a file");
}

/// What an observer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Phase(Phase),
    FirstToken,
    Rows(usize),
    Event(Event),
    /// A run's own span, and that of one call in it.
    Ran(TraceParent, TraceParent),
}

struct Ears(mpsc::UnboundedSender<Seen>);

impl Observe for Ears {
    fn phase(&self, phase: Phase, _: Duration) {
        let _ = self.0.send(Seen::Phase(phase));
    }

    fn first_token(&self, _: Duration) {
        let _ = self.0.send(Seen::FirstToken);
    }

    fn rows(&self, rows: usize) {
        let _ = self.0.send(Seen::Rows(rows));
    }

    fn event(&self, event: Event) {
        let _ = self.0.send(Seen::Event(event));
    }

    fn ran(&self, ran: Ran<'_>) {
        assert!(ran.began <= ran.ended && ran.calls.len() <= ran.rows);
        for call in ran.calls {
            let _ = self.0.send(Seen::Ran(ran.own, *call));
        }
    }
}

/// An engine whose models lie in a temporary folder.
pub(crate) struct House {
    pub(crate) engine: Arc<Engine>,
    seen: mpsc::UnboundedReceiver<Seen>,
    _folder: TempDir,
}

impl House {
    /// Models by name, file of the test data, and `model.toml`.
    pub(crate) fn start(models: &[(&str, &str, &str)], change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, file, toml) in models {
            let place = folder.path().join(name);
            fs::create_dir_all(place.join("1")).expect("a folder");
            fs::copy(testdata(file), place.join("1/model.onnx")).expect("a copy");
            fs::write(place.join("model.toml"), toml).expect("a file");
            fs::write(place.join("labels.txt"), "bright\ndark\n").expect("a file");
        }
        Self::in_folder(folder, change)
    }

    /// Every model of a folder.
    pub(crate) fn in_folder(folder: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { folders: vec![folder.path().to_owned()], ..Settings::default() };
        change(&mut settings);
        Self::with(settings, folder)
    }

    /// Only the models of `settings`.
    pub(crate) fn with(settings: Settings, folder: TempDir) -> Self {
        let (send, seen) = mpsc::unbounded_channel();
        let ears: Arc<dyn Observe> = Arc::new(Ears(send));
        let engine = Engine::start(settings, library(), |_| Arc::clone(&ears)).expect("there are models");
        Self { engine, seen, _folder: folder }
    }

    /// One model that is ready.
    pub(crate) async fn of(file: &str, toml: &str) -> (Self, Arc<Model>) {
        let house = Self::start(&[("m", file, toml)], |_| {});
        let model = house.ready("m").await;
        (house, model)
    }

    pub(crate) async fn ready(&self, name: &str) -> Arc<Model> {
        let model = Arc::clone(self.engine.model(name, None).expect("it is served"));
        assert_eq!(model.settled().await, State::Ready);
        model
    }

    /// Waits until something is seen.
    pub(crate) async fn see(&mut self, wanted: Seen) {
        let seen = async { while self.seen.recv().await.expect("the engine lives") != wanted {} };
        // Only so that a test that waits in vain says for what.
        tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap_or_else(|_| panic!("{wanted:?} never came"));
    }

    /// Everything that was seen and not yet waited for.
    pub(crate) fn rest(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

pub(crate) fn within(millis: u64) -> CallScope {
    let now = Instant::now();
    CallScope { received: now, deadline: Deadline::after(now, Duration::from_millis(millis)), trace: None }
}

/// Far away, for calls whose deadline is not the subject.
pub(crate) fn patient() -> CallScope {
    within(300_000)
}

/// One run of `slow_dial`: `rounds` products of matrices, which can be stopped after each.
pub(crate) async fn dial(model: Arc<Model>, rounds: i64, call: CallScope) -> Result<Inferred, Fault> {
    let inputs =
        vec![("x".to_owned(), Tensor::from_f32(&[1], &[1.0])), ("rounds".to_owned(), Tensor::from_i64(&[], &[rounds]))];
    model.infer(inputs, Vec::new(), call).await
}

/// Rounds that take hours.
pub(crate) const FOR_EVER: i64 = 1 << 40;

pub(crate) const CLASSIFIER: &str = "task = \"classify\"\nlabels = \"labels.txt\"\ninstances = 1\n\
    [input]\nwidth = 28\nheight = 28\ncolor = \"gray\"\n[output]\nactivation = \"none\"\n";

/// A PNG of one shade of gray.
pub(crate) fn shade(edge: u32, level: u8) -> Bytes {
    let pixels = vec![level; (edge * edge) as usize];
    let picture = Picture::new(edge, edge, Channels::Gray, pixels).expect("as many bytes as pixels");
    vision::encode_png(&picture).expect("is encoded").into()
}

pub(crate) const BOTH: ClassifyOptions = ClassifyOptions { top_k: 2, preview_px: 0 };

/// `batch_free` and `batch_fixed` give the mean shade and its negative.
pub(crate) fn assert_shade(result: &engine::Classification, level: u8) {
    let mean = f32::from(level) / 255.0;
    let expected = [(0, mean), (1, -mean)];
    for ((index, score), (wanted, value)) in result.labels.iter().zip(expected) {
        assert_eq!(*index, wanted);
        assert!((score - value).abs() < 1e-4, "{:?}, the shade is {mean}", result.labels);
    }
    assert_eq!(result.labels.len(), 2);
}
