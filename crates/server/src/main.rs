//! `outboard-server`: ONNX models behind framed Thrift.

mod access;
mod calls;
mod chat;
mod convert;
mod embed;
mod methods;
mod metrics;
mod record;
mod service;
mod settings;
mod tls;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use chassis::keyring::Keyring;
use chassis::traces::Traces;
use clap::Parser;
use runtime::Runtime;
use tracing::info;

use crate::access::Access;
use crate::calls::Calls;
use crate::chat::{Chats, Seats, Streams};
use crate::methods::Methods;
use crate::metrics::{ModelLabels, ServerMetrics};
use crate::service::Services;
use crate::settings::Settings;

// Pictures of megabytes come and go: with the system's allocator each costs hundreds of page faults (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves ONNX models over framed Thrift.
///
/// Settings come from the file, then from OUTBOARD_SERVER__... variables, then from these flags; `--print-config` shows the
/// result. config/server.toml explains every key.
#[derive(Parser)]
#[command(name = "outboard-server", version)]
struct Flags {
    /// A settings file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the Thrift listener [default: 127.0.0.1:9090].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Address of the listener for metrics and health by HTTP [default: 127.0.0.1:9091].
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<String>,
    /// Folders with model folders in them, with commas between [default: models].
    #[arg(long, value_name = "DIR,DIR")]
    models: Option<String>,
    /// Serve only these models, with commas between.
    #[arg(long, value_name = "NAME,NAME")]
    only: Option<String>,
    /// auto, cpu or cuda:N for every model, instead of its own setting.
    #[arg(long)]
    device: Option<String>,
    /// ONNX Runtime's library or its folder [default: where scripts/onnxruntime puts it].
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<String>,
    /// Any other setting, such as limits.frame_time=5s.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the settings in force and end.
    #[arg(long)]
    print_config: bool,
}

impl Flags {
    fn settings(&self) -> Result<Settings, String> {
        let named = [
            ("listen", &self.listen),
            ("admin", &self.admin),
            ("models", &self.models),
            ("only", &self.only),
            ("device", &self.device),
            ("onnxruntime", &self.onnxruntime),
        ];
        let flags = chassis::settings::command_line(&named, &self.set).map_err(|error| error.to_string())?;
        let sources = chassis::settings::Sources {
            file: self.config.as_deref(),
            prefix: "OUTBOARD_SERVER",
            lists: &Settings::LISTS,
            flags,
        };
        let settings: Settings = chassis::settings::read(&sources).map_err(|error| error.to_string())?;
        settings.check().map_err(|error| error.to_string())?;
        // What these texts mean is the engine's matter; whether they mean anything is known here already.
        settings.engine()?;
        Ok(settings)
    }
}

fn main() -> ExitCode {
    chassis::program::ended("outboard-server", start(&Flags::parse()))
}

fn start(flags: &Flags) -> Result<(), String> {
    let settings = flags.settings()?;
    if flags.print_config {
        return chassis::program::show(&settings);
    }
    check_exposure(&settings)?;
    let tls = settings.tls.open()?;
    let keyring = Keyring::open(&settings.keys)?;
    let logs = chassis::logs::start(&settings.log)?;
    let engine_settings = settings.engine()?;
    let library = Runtime::load(&settings.library()).map_err(|error| error.to_string())?;
    info!(version = env!("CARGO_PKG_VERSION"), library = %library.path().display(), onnxruntime = library.version(),
        memory_limit = library.memory_limit(), "outboard-server");
    chassis::files::raise_limit(settings.limits.connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.io_threads())
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| format!("the threads could not be started: {error}"))?;
    runtime.block_on(serve(settings, tls, keyring, engine_settings, library, &logs))
}

/// Who must show a certificate is checked. The admin listener speaks no TLS.
fn check_exposure(settings: &Settings) -> Result<(), String> {
    let all = [("admin", settings.admin), ("listen", settings.listen)];
    let unchecked = if settings.tls.is_mutual() { &all[..1] } else { &all[..] };
    chassis::exposure::check(&settings.auth, &settings.keys, unchecked)
}

async fn serve(
    settings: Settings,
    tls: Option<rpc::ServerTls>,
    keyring: Option<Arc<Keyring>>,
    engine: engine::Settings,
    library: &'static Runtime,
    logs: &chassis::logs::Logs,
) -> Result<(), String> {
    let metrics = chassis::metrics::Metrics::new("outboard-server", env!("CARGO_PKG_VERSION"));
    logs.counted_in(&metrics);
    let traces = Traces::start(&settings.traces, "outboard-server", env!("CARGO_PKG_VERSION"), &metrics)?;
    let ours = ServerMetrics::new(&metrics, keyring.as_deref(), traces.clone());
    let server = rpc::Server::bind(settings.listen, settings.rpc()).await;
    let mut server = server.map_err(|error| format!("cannot listen on {} (`listen`): {error}", settings.listen))?;
    if let Some(tls) = tls {
        server = server.secured_by(tls);
    }
    let address = server.local_addr().map_err(|error| error.to_string())?;
    let engine = engine::Engine::start(engine, library, |name| ours.model(name) as Arc<dyn engine::Observe>)?;
    let asked = chassis::exposure::operators(&settings.auth, settings.admin, keyring.as_ref());
    let admin = chassis::admin::start(settings.admin, pages(&metrics, &ours, &engine, asked)).await?;
    info!(%address, %admin, models = engine.models().len(), "listening");
    let (handle, drain) = rpc::Drain::new(settings.drain);
    let instance = uuid::Uuid::new_v4().simple().to_string();
    let streams = Streams::new(instance.clone(), settings.streams(), drain.clone(), ours.streams.clone());
    let methods = Methods {
        engine: Arc::clone(&engine),
        metrics: Arc::clone(&ours),
        access: Access::new(keyring.clone(), Arc::clone(&ours)),
        calls: Calls::default(),
        chats: Chats {
            streams: streams.clone(),
            seats: Seats::new(settings.chat.answers_per_caller),
            deadline: settings.chat.deadline,
        },
        requests: settings.log.requests,
        traces: traces.clone(),
        longest: settings.limits.longest_deadline,
        top_k: settings.limits.top_k,
        preview_px: settings.limits.preview_px,
        instance,
    };
    if let Some(keyring) = keyring {
        tokio::spawn(keyring.follow());
    }
    let service = Arc::new(Services(Arc::new(methods)));
    let mut serving = tokio::spawn(server.observed_by(ours).serve(service, drain));
    tokio::select! {
        asked = chassis::signals::stop_requested() => asked.map_err(|error| format!("no signal handler: {error}"))?,
        // A process that serves nobody must not look alive.
        ended = &mut serving => return Err(format!("the listener ended by itself: {ended:?}")),
    }
    engine.drain();
    handle.start();
    // Never waited for: a drain that ends earlier ends the process.
    tokio::spawn(async move {
        tokio::time::sleep(chat::before_the_end(settings.drain)).await;
        streams.cut_all();
    });
    handle.drained().await;
    serving.await.map_err(|error| format!("the listener ended: {error}"))?;
    engine.close();
    // Nobody waits for this process any more but those who stop it, and these have a little patience.
    traces.end();
    info!("drained");
    Ok(())
}

fn pages(
    metrics: &chassis::metrics::Metrics,
    ours: &Arc<ServerMetrics>,
    engine: &Arc<engine::Engine>,
    keys: Option<Arc<Keyring>>,
) -> chassis::admin::Pages {
    let (ours, loads) = (Arc::clone(ours), Arc::clone(engine));
    // Read when the page is asked for: nothing is kept up to date on the way of a request.
    let before = move || {
        for model in loads.models() {
            let (queued, rows, _) = model.load();
            let labels = ModelLabels { model: model.name().to_string() };
            ours.waiting.get_or_create(&labels).set(queued as i64);
            ours.running.get_or_create(&labels).set(rows as i64);
            if let Some(load) = model.chat_load() {
                ours.chat(&labels, &load);
            }
        }
    };
    let (ready, live) = (Arc::clone(engine), Arc::clone(engine));
    let say = |health: Result<engine::Health, fault::Fault>, well: fn(&engine::Health) -> bool| match health {
        Ok(health) => (well(&health), health.reason.unwrap_or_else(|| "serving".to_owned())),
        Err(fault) => (false, fault.message.into_owned()),
    };
    chassis::admin::Pages {
        metrics: metrics.clone().refreshed_by(before),
        ready: Arc::new(move || say(ready.health(None), |health| health.status == engine::Status::Serving)),
        live: Arc::new(move || say(live.health(None), |health| health.live)),
        keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_certificates_may_listen_to_others_but_not_as_admin() {
        let mutual = ["--set", "tls.certificate=c.pem", "--set", "tls.key=c.key", "--set", "tls.client_ca=ca.pem"];
        let flags = |key: &str, value: &str| {
            let flags = ["outboard-server", key, value].into_iter().chain(mutual);
            Flags::parse_from(flags).settings().expect("they are settings")
        };
        assert_eq!(check_exposure(&flags("--listen", "0.0.0.0:9090")), Ok(()));
        let refused = check_exposure(&flags("--admin", "0.0.0.0:9091")).expect_err("anybody could ask");
        assert!(refused.contains("`admin` is 0.0.0.0:9091"), "{refused}");
        // A certificate of this side alone says nothing about callers.
        let one_way = flags("--listen", "0.0.0.0:9090");
        let one_way = Settings { tls: tls::Tls { client_ca: PathBuf::new(), ..one_way.tls.clone() }, ..one_way };
        assert!(check_exposure(&one_way).is_err_and(|error| error.contains("`listen` is")));
    }

    #[test]
    fn each_listener_that_others_reach_needs_a_word() {
        for key in ["listen", "admin"] {
            let flags = ["outboard-server", &format!("--{key}"), "0.0.0.0:0", "--only", "no-such-model"];
            let refused = start(&Flags::parse_from(flags)).expect_err("anybody could call");
            assert!(refused.contains(&format!("`{key}` is 0.0.0.0:0")), "{refused}");
        }
    }
}
