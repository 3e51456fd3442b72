//! All models of a process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fault::Fault;
use model_store::{ModelFolder, Rejected, StoreError};
use runtime::Runtime;
use tracing::warn;
use units::ModelName;

use crate::decoding::Decoders;
use crate::load::load;
use crate::model::Model;
use crate::observe::Observe;
use crate::settings::Settings;
use crate::state::State;

/// What an orchestrator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every model that was asked about answers.
    Serving,
    /// Broken.
    NotServing,
    /// Starting.
    Loading,
    /// Stopping.
    Draining,
}

/// The health of one model.
#[derive(Clone, Debug)]
pub struct ModelHealth {
    /// Its name.
    pub name: ModelName,
    /// Its status.
    pub status: Status,
    /// One sentence when it does not serve.
    pub reason: Option<String>,
    /// Requests that wait.
    pub waiting: usize,
    /// Rows in runs.
    pub running: usize,
}

/// The health of what was asked about.
#[derive(Clone, Debug)]
pub struct Health {
    /// The worst status of all.
    pub status: Status,
    /// One sentence when that is not `Serving`.
    pub reason: Option<String>,
    /// How long it has held.
    pub since: Duration,
    /// Work in hand by what can be done at once; the highest of all models.
    pub load: f64,
    /// False when a worker hangs and only a restart helps.
    pub live: bool,
    /// One for each model.
    pub models: Vec<ModelHealth>,
}

/// All models of a process.
pub struct Engine {
    models: Vec<Arc<Model>>,
    /// Folders that are no models, with the reason.
    rejected: Vec<String>,
    started: Instant,
    /// When it was told to drain.
    draining: OnceLock<Instant>,
}

impl Engine {
    /// Finds the models and begins to load them in the background, one after the other. `observer` is asked once for each.
    ///
    /// # Errors
    /// When a folder cannot be read, or no model is found; the message says where it looked.
    pub fn start(
        settings: Settings,
        runtime: &'static Runtime,
        mut observer: impl FnMut(&ModelName) -> Arc<dyn Observe>,
    ) -> Result<Arc<Self>, String> {
        let (folders, rejected) = find(&settings)?;
        let settings = Arc::new(settings);
        let decoders = Arc::new(Decoders::new(settings.decode_threads, settings.decoded_bytes));
        let models: Vec<Arc<Model>> = folders
            .into_iter()
            .map(|folder| {
                let observer = observer(&folder.name);
                Arc::new(Model::new(folder, Arc::clone(&settings), Arc::clone(&decoders), observer))
            })
            .collect();
        let loading = models.clone();
        let busy = Arc::new(AtomicUsize::new(0));
        let spawned = std::thread::Builder::new().name("loader".to_owned()).spawn(move || {
            for model in &loading {
                // One broken model must not keep those behind it from loading.
                if catch_unwind(AssertUnwindSafe(|| load(model, runtime, &busy))).is_err() {
                    warn!(model = %model.name(), "loading panicked");
                    model.enter(State::Failed("the loader panicked, the log says why".to_owned()));
                }
            }
        });
        spawned.map_err(|error| format!("the loader thread could not be started: {error}"))?;
        Ok(Arc::new(Self { models, rejected, started: Instant::now(), draining: OnceLock::new() }))
    }

    /// Every model, by name.
    #[must_use]
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// A model by name and, when one is asked for, version.
    ///
    /// # Errors
    /// NotFound, naming the model or the version.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<&Arc<Model>, Fault> {
        let model = self.models.binary_search_by(|model| model.name().as_str().cmp(name));
        let model = model.map(|at| &self.models[at]).map_err(|_| {
            // Cut: the name came from outside and may be as long as a frame.
            let name: String = name.chars().take(128).collect();
            Fault::model_not_found(&name)
        })?;
        match version.filter(|version| !version.is_empty() && *version != model.version()) {
            None => Ok(model),
            Some(other) => {
                let other: String = other.chars().take(32).collect();
                let serving = model.version();
                let message = format!("model `{name}` is served in version {serving}, not in `{other}`");
                Err(Fault::not_found(message).with_param("version"))
            }
        }
    }

    /// The health of one model, or of all.
    ///
    /// # Errors
    /// NotFound for an unknown name.
    pub fn health(&self, only: Option<&str>) -> Result<Health, Fault> {
        let models: Vec<&Arc<Model>> = match only {
            Some(name) => vec![self.model(name, None)?],
            None => self.models.iter().collect(),
        };
        let looks: Vec<Look> = models.iter().map(|model| Look::at(model)).collect();
        let live = !looks.iter().any(|look| look.in_trouble);
        let load = looks.iter().map(|look| look.load).fold(0.0, f64::max);
        let worst = |status: Status| looks.iter().find(|look| look.health.status == status);
        let (status, reason, since) = if let Some(since) = self.draining.get() {
            (Status::Draining, Some("the server is draining".to_owned()), *since)
        } else if let Some(broken) = worst(Status::NotServing) {
            (Status::NotServing, Some(named(&broken.health)), broken.since)
        } else if let Some(loading) = worst(Status::Loading) {
            let since = if only.is_some() { loading.since } else { self.started };
            (Status::Loading, Some(named(&loading.health)), since)
        } else if only.is_none() && !self.rejected.is_empty() {
            (Status::NotServing, Some(self.rejected.join("; ")), self.started)
        } else {
            // Since the last of them has been serving.
            (Status::Serving, None, looks.iter().map(|look| look.since).max().unwrap_or(self.started))
        };
        let models = looks.into_iter().map(|look| look.health).collect();
        Ok(Health { status, reason, since: since.elapsed(), load, live, models })
    }

    /// Says draining from now on. Work goes on being taken: whoever stops the process refuses new calls at its door.
    pub fn drain(&self) {
        self.draining.get_or_init(Instant::now);
    }

    /// Lets the workers end when they have nothing left to do.
    pub fn close(&self) {
        for model in &self.models {
            model.enter(State::Draining);
            if let Some(serving) = model.serving.get() {
                serving.lane.close();
            }
        }
    }
}

fn named(one: &ModelHealth) -> String {
    format!("model `{}` {}", one.name, one.reason.as_deref().unwrap_or("does not serve"))
}

/// One model at one moment: asked once, so that what is said of it belongs together.
struct Look {
    health: ModelHealth,
    /// How long its status has held.
    since: Instant,
    /// Work in hand by what can be done at once.
    load: f64,
    in_trouble: bool,
}

impl Look {
    fn at(model: &Model) -> Self {
        let (waiting, running, load) = model.load();
        let trouble = model.trouble();
        let (state, mut since) = (model.state(), model.held_since());
        let (status, reason) = match (&state, trouble) {
            (State::Ready, Some((trouble, from))) => {
                since = from;
                (Status::NotServing, Some(trouble.to_owned()))
            }
            (State::Ready, None) => (Status::Serving, None),
            (State::Loading | State::Warming, _) => (Status::Loading, Some(format!("is {state}"))),
            (State::Failed(reason), _) => (Status::NotServing, Some(format!("failed: {reason}"))),
            (State::Draining, _) => (Status::Draining, Some("is draining".to_owned())),
        };
        let health = ModelHealth { name: model.name().clone(), status, reason, waiting, running };
        Self { health, since, load, in_trouble: trouble.is_some() }
    }
}

/// The models of all folders by name, and what is wrong with the others.
fn find(settings: &Settings) -> Result<(Vec<ModelFolder>, Vec<String>), String> {
    let (mut found, mut rejected): (Vec<ModelFolder>, Vec<Rejected>) = (Vec::new(), Vec::new());
    for folder in &settings.folders {
        for one in model_store::scan(folder).map_err(|error| format!("model folder {error}"))? {
            match one {
                Ok(model) if found.iter().any(|earlier| earlier.name == model.name) => {
                    warn!(model = %model.name, path = %model.path.display(), "another folder already has this model");
                }
                Ok(model) => found.push(model),
                Err(error) => rejected.push(error),
            }
        }
    }
    // A name that is served from another folder, or a model that is not wanted, is nothing to complain about.
    let wanted = |name: &str| settings.only.is_empty() || settings.only.iter().any(|only| only.as_str() == name);
    rejected.retain(|one| wanted(&one.name) && !found.iter().any(|model| model.name.as_str() == one.name));
    found.retain(|model| wanted(model.name.as_str()));
    for one in &rejected {
        warn!(reason = %one.error, "a model folder was left out");
    }
    let places = settings.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    if let Some(missing) = settings.only.iter().find(|only| !found.iter().any(|model| model.name == **only)) {
        return Err(format!("no model `{missing}` in {places}"));
    }
    if found.is_empty() {
        let reasons: Vec<String> = rejected.iter().map(|one| one.error.to_string()).collect();
        let because = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        return Err(format!("no model in {places}{because}: expected folders such as NAME/1/model.onnx"));
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    // Settings without a model are a card whose model may be imported later: nothing that is served is broken by it.
    rejected.retain(|one| !matches!(one.error, StoreError::NoVersion { .. }));
    Ok((found, rejected.iter().map(|one| one.error.to_string()).collect()))
}
