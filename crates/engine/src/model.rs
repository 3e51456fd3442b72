//! One served model.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use fault::Fault;
use model_store::{Activation, ModelFolder, Task};
use parking_lot::RwLock;
use runtime::{Chosen, RunError, TensorSpec};
use tokio::sync::Notify;
use units::ModelName;
use vision::Recipe;

use crate::ChatLoad;
use crate::buffers::Buffers;
use crate::chat::{Slots, Speaker};
use crate::decoding::Decoders;
use crate::embed::Embedder;
use crate::lane::Lane;
use crate::observe::Observe;
use crate::settings::Settings;
use crate::state::{Held, State};
use crate::worker::Rows;

/// What is known of a model's inside once it is loaded.
pub(crate) struct Serving {
    pub(crate) lane: Arc<Lane>,
    pub(crate) rows: Option<Rows>,
    pub(crate) joins: bool,
    pub(crate) max_rows: usize,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    pub(crate) chosen: Chosen,
    pub(crate) placement: Vec<(String, usize)>,
    pub(crate) workers: usize,
    pub(crate) classes: Option<usize>,
    pub(crate) buffers: Arc<Buffers>,
}

impl Serving {
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub(crate) fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    pub(crate) fn joins(&self) -> bool {
        self.joins
    }

    pub(crate) fn max_rows(&self) -> usize {
        self.max_rows
    }

    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }
}

/// What a model is, for people and programs that ask.
#[derive(Clone, Debug)]
pub struct Description {
    /// Inputs as the model declares them; empty before it is loaded.
    pub inputs: Vec<TensorSpec>,
    /// Outputs likewise.
    pub outputs: Vec<TensorSpec>,
    /// The device and why it is this one, once loaded.
    pub chosen: Option<Chosen>,
    /// Nodes by execution provider, once loaded.
    pub placement: Vec<(String, usize)>,
    /// Most rows in one run.
    pub max_rows: usize,
    /// Number of classes, when it is a classifier.
    pub classes: Option<usize>,
    /// Workers, once loaded.
    pub workers: usize,
    /// Measured time of a run by rows, once warm.
    pub curve: Vec<(usize, Duration)>,
    /// How the cache of a chat model is cut, once loaded.
    pub slots: Option<Slots>,
}

/// A model that is served, or that will be, or that failed to be.
pub struct Model {
    pub(crate) folder: ModelFolder,
    version: String,
    recipe: Option<Arc<Recipe>>,
    picture_limits: vision::Limits,
    held: RwLock<Held>,
    changed: Notify,
    pub(crate) serving: OnceLock<Serving>,
    /// The inside of a chat model, which has no lane.
    pub(crate) speaker: OnceLock<Arc<Speaker>>,
    /// What an embedding model has besides.
    pub(crate) embedder: OnceLock<Embedder>,
    settings: Arc<Settings>,
    decoders: Arc<Decoders>,
    observer: Arc<dyn Observe>,
}

impl Model {
    pub(crate) fn new(
        folder: ModelFolder,
        settings: Arc<Settings>,
        decoders: Arc<Decoders>,
        observer: Arc<dyn Observe>,
    ) -> Self {
        let version = folder.newest().number.to_string();
        let recipe = folder.settings.input.clone().map(Arc::new);
        let picture_limits = folder.settings.limits.pictures(settings.pictures);
        let held = RwLock::new(Held::new(State::Loading));
        Self {
            folder,
            version,
            recipe,
            picture_limits,
            held,
            changed: Notify::new(),
            serving: OnceLock::new(),
            speaker: OnceLock::new(),
            embedder: OnceLock::new(),
            settings,
            decoders,
            observer,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.folder.name
    }

    /// The version that answers.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every version in its folder, oldest first.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.folder.versions.iter().map(|version| version.number.to_string()).collect()
    }

    /// When the version that answers was written to its folder.
    #[must_use]
    pub fn modified(&self) -> Option<SystemTime> {
        self.folder.newest().modified
    }

    /// What it is for.
    #[must_use]
    pub fn task(&self) -> Task {
        self.folder.settings.task
    }

    /// Class names in index order; empty when it has none.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.folder.labels
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.folder.settings.description.as_deref()
    }

    /// The licence of its weights.
    #[must_use]
    pub fn licence(&self) -> Option<&str> {
        self.folder.settings.licence.as_deref()
    }

    /// How long a call may take that does not say itself.
    #[must_use]
    pub fn default_deadline(&self) -> Duration {
        self.folder.settings.limits.deadline()
    }

    /// Where it is between load and drain.
    #[must_use]
    pub fn state(&self) -> State {
        self.held.read().state.clone()
    }

    /// Waits until it is neither loading nor warming up, and says where it is then.
    pub async fn settled(&self) -> State {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change falls between.
            changed.as_mut().enable();
            let state = self.state();
            if !matches!(state, State::Loading | State::Warming) {
                return state;
            }
            changed.await;
        }
    }

    /// Since when it has been there.
    #[must_use]
    pub fn held_since(&self) -> Instant {
        self.held.read().since
    }

    /// Requests that wait, rows that run (slots in use of a chat model), and both by what can be done at once.
    #[must_use]
    pub fn load(&self) -> (usize, usize, f64) {
        if let Some(load) = self.chat_load() {
            return (load.waiting, load.busy, (load.waiting + load.busy) as f64 / load.slots.max(1) as f64);
        }
        self.serving.get().map_or((0, 0, 0.0), |serving| serving.lane.load())
    }

    /// What a chat model has in hand and what it has done, once loaded.
    #[must_use]
    pub fn chat_load(&self) -> Option<ChatLoad> {
        self.speaker.get().map(|speaker| speaker.load())
    }

    /// What is broken so that only a restart helps, and since when: a worker that hangs in a run that was told to stop, or that died, or
    /// a generator that does not come to the end of a turn.
    #[must_use]
    pub fn trouble(&self) -> Option<(&'static str, Instant)> {
        let lane = self.serving.get().and_then(|serving| serving.lane.trouble(self.settings.wedged_after));
        lane.or_else(|| self.speaker.get().and_then(|speaker| speaker.trouble(self.settings.wedged_after)))
    }

    /// What it is.
    #[must_use]
    pub fn describe(&self) -> Description {
        let serving = self.serving.get();
        if let Some(speaker) = self.speaker.get() {
            return Description {
                inputs: Vec::new(),
                outputs: Vec::new(),
                chosen: Some(speaker.chosen.clone()),
                placement: speaker.placement.clone(),
                max_rows: speaker.slots.count,
                classes: None,
                workers: 1,
                curve: Vec::new(),
                slots: Some(speaker.slots),
            };
        }
        Description {
            inputs: serving.map(|one| one.inputs.clone()).unwrap_or_default(),
            outputs: serving.map(|one| one.outputs.clone()).unwrap_or_default(),
            chosen: serving.map(|one| one.chosen.clone()),
            placement: serving.map(|one| one.placement.clone()).unwrap_or_default(),
            max_rows: serving.map_or(self.configured_max_rows(), |one| one.max_rows),
            classes: serving.and_then(|one| one.classes).or((!self.labels().is_empty()).then_some(self.labels().len())),
            workers: serving.map_or(0, |one| one.workers),
            curve: serving.map(|one| one.lane.curve()).unwrap_or_default(),
            slots: None,
        }
    }

    fn configured_max_rows(&self) -> usize {
        self.folder.settings.batching.clone().unwrap_or_default().max_rows
    }

    /// Nothing comes after draining: a model that is still being loaded when the process ends must not say `Ready`.
    pub(crate) fn enter(&self, state: State) {
        let mut held = self.held.write();
        if held.state != State::Draining {
            *held = Held::new(state);
            self.changed.notify_waiters();
        }
    }

    pub(crate) fn picture_limits(&self) -> &vision::Limits {
        &self.picture_limits
    }

    pub(crate) fn recipe(&self) -> Option<&Arc<Recipe>> {
        self.recipe.as_ref()
    }

    pub(crate) fn activation(&self) -> Activation {
        self.folder.settings.output.activation
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn decoders(&self) -> &Arc<Decoders> {
        &self.decoders
    }

    /// Who is told of what happens to it.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observe> {
        &self.observer
    }

    /// The inside, when the model takes work by rows and tensors.
    pub(crate) fn serving(&self) -> Result<&Serving, Fault> {
        if self.task() == Task::Chat {
            return Err(self.wrong_task("infer and classify"));
        }
        self.answering()?;
        self.serving.get().ok_or_else(|| Fault::internal("a model is ready and has no inside"))
    }

    /// The call is for models of another task.
    pub(crate) fn wrong_task(&self, call: &str) -> Fault {
        let task = match self.task() {
            Task::Tensor => "tensor",
            Task::Classify => "classify",
            Task::Embed => "embed",
            Task::Transform => "transform",
            Task::Chat => "chat",
        };
        let name = self.name();
        Fault::invalid_input(format!("model `{name}` is for {task}, it does not serve {call}")).with_param("model")
    }

    /// Whether it takes work now.
    pub(crate) fn answering(&self) -> Result<(), Fault> {
        match &self.held.read().state {
            State::Ready => Ok(()),
            State::Failed(reason) => {
                Err(Fault::unavailable(format!("model `{}` failed to load: {reason}", self.name())).with_param("model"))
            }
            state => Err(Fault::unavailable(format!("model `{}` is {state}", self.name()))
                .with_param("model")
                .with_retry_after(Duration::from_secs(1))),
        }
    }
}

/// What a failed run means to the caller. `lonely`: nothing else ran in the process, so that nothing else can be blamed.
pub(crate) fn fault_of(error: RunError, model: &ModelName, ran: Duration, lonely: bool) -> Fault {
    match error {
        RunError::Input { name, reason } => Fault::invalid_input(format!("input `{name}` {reason}")).with_param(name),
        RunError::Output { name, reason } => {
            Fault::invalid_input(format!("output `{name}` {reason}")).with_param("outputs")
        }
        RunError::Refused(reason) => Fault::invalid_input(format!("model `{model}` refused the values: {reason}")),
        // The limit is for all models together: with fewer at work it may fit.
        RunError::OutOfMemory { limit, .. } if !lonely => Fault::overloaded(format!(
            "the run and those beside it need more memory than models may take, which is {limit} bytes"
        ))
        .with_retry_after(ran.max(Duration::from_millis(100))),
        RunError::OutOfMemory { limit, .. } => {
            Fault::too_large(format!("the run needs more memory than models may take, which is {limit} bytes"))
        }
        RunError::OutputTooLarge { .. } => Fault::too_large(error.to_string()),
        RunError::Stopped => {
            Fault::cancelled(format!("the run of model `{model}` was stopped after {} ms", ran.as_millis()))
        }
        RunError::Failed(reason) => Fault::internal(format!("model `{model}` failed to run: {reason}")),
    }
}
