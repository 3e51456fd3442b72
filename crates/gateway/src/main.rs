//! `outboard-gateway`: pages and HTTP APIs in front of the model servers.

mod access;
mod ask;
mod assets;
mod backend;
mod body;
mod chat_page;
mod classify;
mod description;
mod form;
mod health;
mod history_api;
mod history_page;
mod keeping;
mod leaving;
mod memory;
mod metrics;
mod models;
mod openai;
mod origin;
mod pages;
mod problem;
mod query;
mod server_key;
mod server_tls;
mod settings;
mod site;
mod trace;

use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, guard, web};
use chassis::keyring::Keyring;
use chassis::silence::Silence;
use chassis::traces::Traces;
use clap::Parser;
use fault::Fault;
use history::History;
use rpc::{ClientTls, Endpoint};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::access::session;
use crate::ask::Ask;
use crate::backend::Backend;
use crate::memory::Budget;
use crate::metrics::{GatewayMetrics, Route};
use crate::pages::Templates;
use crate::problem::{Problem, start_of};
use crate::server_key::ServerKey;
use crate::settings::Settings;
use crate::site::{Process, Site};

// Bodies of megabytes come and go: with the system's allocator each costs hundreds of page faults (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Until the listeners are closed; the accept thread takes a wake-up for it.
const CLOSING: Duration = Duration::from_millis(100);
/// After the last answer of a drain: time for requests that were on their way on kept connections.
const LATE: Duration = Duration::from_millis(300);
/// So long before the end of a drain, what still runs gets its last words: they must reach the client.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For the history's stores to take what they have not yet; the rest waits on the disk for the next start.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves pages and HTTP APIs, and forwards the work to outboard-server over framed Thrift.
///
/// Settings come from the file, then from OUTBOARD_GATEWAY__... variables, then from these flags; `--print-config` shows the
/// result. config/gateway.toml explains every key.
#[derive(Parser)]
#[command(name = "outboard-gateway", version)]
struct Flags {
    /// A settings file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the HTTP listener [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Address of the listener for metrics and health [default: 127.0.0.1:8001].
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<String>,
    /// The model servers, with commas between [default: 127.0.0.1:9090].
    #[arg(long, value_name = "HOST:PORT,HOST:PORT")]
    servers: Option<String>,
    /// Any other setting, such as limits.deadline=5s.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the settings in force and end.
    #[arg(long)]
    print_config: bool,
}

impl Flags {
    fn settings(&self) -> Result<Settings, String> {
        let named = [("listen", &self.listen), ("admin", &self.admin), ("servers", &self.servers)];
        let flags = chassis::settings::command_line(&named, &self.set).map_err(|error| error.to_string())?;
        let sources = chassis::settings::Sources {
            file: self.config.as_deref(),
            prefix: "OUTBOARD_GATEWAY",
            lists: &Settings::LISTS,
            flags,
        };
        let settings: Settings = chassis::settings::read(&sources).map_err(|error| error.to_string())?;
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings)
    }
}

fn main() -> ExitCode {
    chassis::program::ended("outboard-gateway", start(&Flags::parse()))
}

fn start(flags: &Flags) -> Result<(), String> {
    let settings = flags.settings()?;
    if flags.print_config {
        return chassis::program::show(&settings.without_secrets());
    }
    settings.check_exposure()?;
    let keyring = Keyring::open(&settings.keys)?;
    let server_key = ServerKey::open(&settings)?;
    let tls = settings.channel.tls.open()?;
    let servers: Vec<Endpoint> = settings
        .servers
        .iter()
        .map(|text| Endpoint::parse(text).map_err(|error| format!("settings: `servers`: {error}")))
        .collect::<Result<_, _>>()?;
    if servers.is_empty() {
        return Err("settings: `servers` is empty, expected at least one host:port".to_owned());
    }
    let logs = chassis::logs::start(&settings.log)?;
    chassis::files::raise_limit(settings.limits.connections);
    let history = History::start(&settings.history)?.map(Arc::new);
    let served = actix_web::rt::System::new().block_on(serve(
        settings,
        servers,
        keyring,
        server_key,
        tls,
        history.clone(),
        &logs,
    ));
    if let Some(history) = history {
        history.close(FAREWELL);
    }
    served
}

async fn serve(
    settings: Settings,
    servers: Vec<Endpoint>,
    keyring: Option<Arc<Keyring>>,
    server_key: ServerKey,
    tls: Option<ClientTls>,
    history: Option<Arc<History>>,
    logs: &chassis::logs::Logs,
) -> Result<(), String> {
    let metrics = chassis::metrics::Metrics::new("outboard-gateway", env!("CARGO_PKG_VERSION"));
    logs.counted_in(&metrics);
    if let Some(history) = &history {
        metrics.register(|registry| history.register(registry));
    }
    let traces = Traces::start(&settings.traces, "outboard-gateway", env!("CARGO_PKG_VERSION"), &metrics)?;
    let shown = GatewayMetrics::new(&metrics, keyring.as_deref());
    let memory = settings.limits.bodies.as_u64() as usize;
    let process = Arc::new(Process {
        traces: traces.clone(),
        templates: Templates::new().with_history(history.is_some()),
        draining: AtomicBool::new(false),
        ending: watch::Sender::new(false),
        bodies: Budget::new(memory, "bodies in memory", shown.body_bytes.clone()),
        leaving: Budget::new(memory, "pictures on their way", shown.leaving_bytes.clone()),
        in_flight: AtomicUsize::new(0),
        metrics: shown,
        keyring,
        history,
        settings,
    });
    let settings = &process.settings;
    let draining = Arc::clone(&process);
    let say = move || match draining.draining.load(Ordering::Acquire) {
        false => (true, "started".to_owned()),
        true => (false, "draining".to_owned()),
    };
    let pages = chassis::admin::Pages {
        metrics,
        ready: Arc::new(say),
        live: Arc::new(|| (true, "live".to_owned())),
        keys: chassis::exposure::operators(&settings.auth, settings.admin, process.keyring.as_ref()),
    };
    let admin = chassis::admin::start(settings.admin, pages).await?;
    let (shared, workers, shown) = (Arc::clone(&process), settings.workers(), server_key.clone());
    let write_stall = settings.limits.write_stall;
    let followed_tls = tls.clone();
    let unusable = |error: std::io::Error| format!("cannot listen on {} (`listen`): {error}", settings.listen);
    let listener = listen(settings.listen).map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    let door = Socket::from(listener.try_clone().map_err(unusable)?);
    let http = HttpServer::new(move || {
        // Made on the worker's own thread, so its connections live there, too.
        let backend = Backend::new(servers.clone(), &shared.settings, &shared.metrics, shown.clone(), tls.clone());
        let site = Site { process: Arc::clone(&shared), backend };
        let asked = Condition::new(site.process.keyring.is_some(), from_fn(access::check));
        App::new().app_data(web::Data::new(site)).wrap(asked).configure(routes)
    })
    .workers(workers)
    .max_connections(settings.limits.connections.div_ceil(workers))
    // A client that closes its side has left: nobody waits for the answer.
    .h1_allow_half_closed(false)
    // Longer than nginx keeps its side (60 s), so that it is never we who close a connection that it is about to use.
    .keep_alive(Duration::from_secs(75))
    .client_request_timeout(Duration::from_secs(10))
    .shutdown_timeout(settings.drain.as_secs())
    .on_connect(move |connection, _| {
        // For a reader who stays and takes nothing as well, whose system answers that it is there. What cannot be limited is served.
        if let Some(stream) = connection.downcast_ref::<TcpStream>() {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(write_stall));
        }
    })
    .disable_signals()
    .listen(listener)
    .map_err(unusable)?;
    info!(version = env!("CARGO_PKG_VERSION"), %address, %admin, workers, servers = settings.servers.join(","), "listening");
    if let Some(keyring) = &process.keyring {
        actix_web::rt::spawn(Arc::clone(keyring).follow());
    }
    actix_web::rt::spawn(server_key.follow());
    if let Some(tls) = followed_tls {
        actix_web::rt::spawn(server_tls::follow(tls, Arc::clone(&process.metrics.tls)));
    }
    let server = http.run();
    actix_web::rt::spawn(drain(door, server.handle(), logs.silence(), Arc::clone(&process)));
    server.await.map_err(|error| format!("the listener failed: {error}"))?;
    info!("drained");
    traces.end();
    Ok(())
}

/// A listener with a long queue: a thousand clients may come back at the same moment.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the old process's connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// At the first signal: no new connections, answers close theirs, and the end comes when nothing is in flight. What still runs
/// shortly before the limit is told so, instead of being cut.
async fn drain(door: Socket, server: ServerHandle, silence: Silence, process: Arc<Process>) {
    if let Err(error) = chassis::signals::stop_requested().await {
        warn!(%error, "no signal handler");
        return;
    }
    // It goes on asking the shut listener for connections, and would log the refusal as an error twice a second.
    silence.on("actix_server::accept");
    // Shut first: actix keeps copies of the listener, and as long as one is open the system takes connections that nobody
    // will serve. What waits in the queue is accepted within the pause; only then are clients told to connect elsewhere.
    if let Err(error) = door.shutdown(Shutdown::Both) {
        warn!(%error, "the listener could not be shut");
    }
    tokio::time::sleep(CLOSING).await;
    process.draining.store(true, Ordering::Release);
    let limit = Instant::now() + process.settings.drain;
    // A short drain has half of its time for the work.
    let last_words = limit - LAST_WORDS.min(process.settings.drain / 2);
    let mut quiet_since = Instant::now();
    while Instant::now() < limit && quiet_since.elapsed() < LATE {
        if process.in_flight.load(Ordering::Acquire) > 0 {
            quiet_since = Instant::now();
        }
        if Instant::now() >= last_words && !process.ending.send_replace(true) {
            let in_flight = process.in_flight.load(Ordering::Acquire);
            info!(in_flight, "the drain's time is nearly over: what still runs is ended");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop(false).await;
    // What actix still waits for are connections without requests.
    info!("drained");
    actix_web::rt::System::current().stop();
}

fn routes(config: &mut web::ServiceConfig) {
    let pictures = web::resource("/v1/classify").post(classify::post).default_service(only("POST"));
    let upload = web::resource("/upload").route(get().to(pages::upload_form)).post(pages::upload);
    let kept = web::resource("/v1/history/{id}").route(get().to(history_api::one)).delete(history_api::delete);
    let correction =
        web::resource("/v1/history/{id}/correction").put(history_api::correct).delete(history_api::take_back);
    let delete =
        web::resource("/history/{id}/delete").route(get().to(history_page::ask_delete)).post(history_page::delete);
    let correct = web::resource("/history/{id}/correct").post(history_page::correct);
    let chat = web::resource("/chat").route(get().to(chat_page::form)).post(chat_page::post);
    config
        .service(pictures)
        .service(upload.default_service(only("GET, HEAD, POST")))
        .service(chat.default_service(only("GET, HEAD, POST")))
        .service(web::resource("/v1/chat/completions").post(openai::chat).default_service(only("POST")))
        .service(web::resource("/v1/completions").post(openai::completions).default_service(only("POST")))
        .service(web::resource("/v1/embeddings").post(openai::embeddings::post).default_service(only("POST")))
        .service(web::resource("/v1/models").route(get().to(models::list)).default_service(read_only()))
        .service(web::resource("/v1/models/{model:.+}").route(get().to(models::one)).default_service(read_only()))
        .service(web::resource("/v1/history").route(get().to(history_api::list)).default_service(read_only()))
        .service(kept.default_service(only("GET, HEAD, DELETE")))
        .service(
            web::resource("/v1/history/{id}/picture")
                .route(get().to(history_api::picture))
                .default_service(read_only()),
        )
        .service(
            web::resource("/v1/history/{id}/preview")
                .route(get().to(history_api::preview))
                .default_service(read_only()),
        )
        .service(correction.default_service(only("PUT, DELETE")))
        .service(web::resource("/history").route(get().to(history_page::list)).default_service(read_only()))
        .service(web::resource("/history/{id}").route(get().to(history_page::one)).default_service(read_only()))
        .service(delete.default_service(only("GET, HEAD, POST")))
        .service(correct.default_service(only("POST")))
        .service(web::resource("/health/live").route(get().to(health::live)).default_service(read_only()))
        .service(web::resource("/health/ready").route(get().to(health::ready)).default_service(read_only()))
        .service(web::resource("/openapi.json").route(get().to(description::openapi)).default_service(read_only()))
        .service(web::resource("/docs").route(get().to(description::docs)).default_service(read_only()))
        .service(
            web::resource("/login")
                .route(get().to(session::form))
                .post(session::log_in)
                .default_service(only("GET, HEAD, POST")),
        )
        .service(web::resource("/logout").post(session::log_out).default_service(only("POST")))
        .service(web::resource("/").route(get().to(pages::home)).default_service(read_only()))
        .service(web::resource("/assets/{digest}/{file}").route(get().to(assets::file)).default_service(read_only()))
        .service(web::resource("/favicon.ico").route(get().to(assets::icon)).default_service(read_only()))
        .default_service(web::to(unknown));
}

/// GET, and HEAD: the same answer, whose body actix leaves out.
fn get() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn read_only() -> actix_web::Route {
    only("GET, HEAD")
}

/// Answers every other method of a path.
fn only(allowed: &'static str) -> actix_web::Route {
    web::to(move |request: HttpRequest, payload: web::Payload, site: web::Data<Site>| async move {
        let ask = Ask::new(&request, &site, Route::Unknown);
        body::discard(&mut payload.into_inner(), &site.process).await;
        ask.answer(Err(Problem::Method { allowed }))
    })
}

async fn unknown(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Unknown);
    body::discard(&mut payload.into_inner(), &site.process).await;
    let path = start_of(request.path(), 128);
    ask.answer(Err(Fault::not_found(format!("there is nothing at {path}")).into()))
}
