//! Keeps one connection to a server up, and watches that somebody is there.
//!
//! Promises: an endpoint is always connected or being connected, one attempt at a time for each connection, with
//! growing jittered pauses of at most a second, so that a server that is back is noticed within about one, and at once when a call
//! waits for it. Where the channel has a [`Ping`], a connection is up only after the server has answered one, and a server that
//! hangs or cannot be reached any more is noticed within two to three of its intervals: its connections are closed, so that
//! their calls can go elsewhere, and it is ejected.
//! Not here: what becomes of the calls (`channel`).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelConfig;
use crate::endpoint::{Backend, State};
use crate::link::{CLOSED, Link, Unanswered};
use crate::ping::{Due, Silence};
use crate::socket::{self, Stream};
use crate::{Ping, Pong};

pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// After a refusal no call makes the pause shorter than this: it was no restart that goes unnoticed, and costs the server a handshake
/// for each thread of each client.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// A connection that lived shorter than this counts as a failed attempt: a server at its limit accepts and closes.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// So often it is looked whether the connection to a server that has left is still used.
const LOOK: Duration = Duration::from_millis(250);

/// A new connection's first answer takes at most this many intervals of the pings.
const GREETING: u32 = 2;

/// What has been silent for too long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silent {
    /// It may not be there.
    Server,
    /// On another one the server did answer.
    Connection,
}

pub(crate) struct Keeper {
    pub(crate) backend: Arc<Backend>,
    pub(crate) slot: usize,
    pub(crate) config: ChannelConfig,
    pub(crate) changed: Arc<watch::Sender<()>>,
    pub(crate) stop: CancellationToken,
}

/// Why there is no connection.
struct NotMade {
    reason: Arc<str>,
    /// Nothing came from the server: it may not be there.
    silent: bool,
}

impl NotMade {
    /// Until the next attempt, though a call waits for it.
    fn least_pause(&self) -> Duration {
        // A thousand waiting calls are no reason for a thousand attempts.
        if self.silent { FIRST_PAUSE } else { REFUSED_PAUSE }
    }
}

/// How a connection that was up has ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Closed,
    Silent,
}

impl Keeper {
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        let kept = async {
            tokio::select! {
                () = self.keep_up() => {}
                () = self.goes() => {}
            }
        };
        stop.run_until_cancelled(kept).await;
        let over = State::Down(Arc::from(format!("{}: it is no longer there", self.backend.label)), Instant::now());
        let last = std::mem::replace(&mut *self.backend.slots[self.slot].state.lock(), over);
        if let State::Up(link) = last {
            link.close("the channel was dropped, or its address");
        }
        self.backend.kept_no_more();
        self.changed.send_replace(());
    }

    /// Resolves when the server has left and the connection was not needed for a while: what was begun on it may have pauses between
    /// its calls.
    async fn goes(&self) {
        loop {
            self.backend.retired().await;
            let mut unused = Duration::ZERO;
            while unused < self.config.linger && self.backend.is_retired() {
                tokio::time::sleep(LOOK).await;
                let used = matches!(&*self.backend.slots[self.slot].state.lock(), State::Up(link) if link.take_used());
                unused = if used { Duration::ZERO } else { unused + LOOK };
            }
            if self.backend.end() {
                return;
            }
        }
    }

    async fn keep_up(&self) {
        let mut failures = 0;
        loop {
            let tried = Instant::now();
            let (not_made, was_up) = match self.connect().await {
                Ok(link) => {
                    let began = Instant::now();
                    self.set(State::Up(Arc::clone(&link)));
                    match self.watch(&link).await {
                        Ended::Silent => (NotMade { reason: self.hung(), silent: true }, false),
                        Ended::Closed if began.elapsed() >= SHORT_LIFE => {
                            failures = 0;
                            self.set(State::Connecting);
                            continue;
                        }
                        Ended::Closed => (NotMade { reason: self.short_lived(&link), silent: false }, true),
                    }
                }
                Err(not_made) => (not_made, false),
            };
            // The first short life may be a restart: go again at once, and let calls wait for it.
            if failures == 0 && was_up {
                self.set(State::Connecting);
            } else {
                let least = not_made.least_pause();
                self.set(State::Down(not_made.reason, Instant::now()));
                self.backend.lost.notify_one();
                pause(tried, failures, least, &self.backend.slots[self.slot].wanted).await;
            }
            failures += 1;
        }
    }

    fn set(&self, state: State) {
        *self.backend.slots[self.slot].state.lock() = state;
        self.changed.send_replace(());
    }

    fn short_lived(&self, link: &Link) -> Arc<str> {
        match link.reason() {
            // With TLS a server may say only now what it did not like.
            Some(reason) if &*reason != CLOSED => Arc::from(format!("{}: {reason}", self.backend.label)),
            _ => Arc::from("closed by the server right after connecting"),
        }
    }

    fn hung(&self) -> Arc<str> {
        Arc::from(format!("{}: connected, but it answers nothing", self.backend.label))
    }

    /// A connection on which a call would be answered.
    async fn connect(&self) -> Result<Arc<Link>, NotMade> {
        let link = self.open().await?;
        let Some(ping) = &self.config.ping else { return Ok(link) };
        let unused = CloseOnDrop(&link);
        match timeout(GREETING * ping.every, ask(ping, &link)).await {
            Ok(Ok(pong)) => {
                self.backend.load.leaves(pong == Pong::Leaves, Instant::now());
                unused.keep();
                Ok(link)
            }
            Ok(Err(Unanswered(reason))) => {
                Err(NotMade { reason: Arc::from(format!("{}: {reason}", self.backend.label)), silent: false })
            }
            Err(_) => Err(NotMade { reason: self.hung(), silent: true }),
        }
    }

    async fn open(&self) -> Result<Arc<Link>, NotMade> {
        let stream = self.stream().await?;
        Ok(Link::open(stream, self.config.frames(), self.config.calls_per_connection))
    }

    /// Until the connection has ended, or the server is not there any more.
    async fn watch(&self, link: &Arc<Link>) -> Ended {
        let Some(ping) = &self.config.ping else {
            link.closed().await;
            return Ended::Closed;
        };
        tokio::select! {
            () = link.closed() => Ended::Closed,
            silent = self.listen(link, ping) => {
                // First: the calls that learn of it now must not come back.
                if silent == Silent::Server && self.backend.load.eject(Instant::now()) {
                    self.config.observe.ejected();
                }
                self.config.observe.hung();
                let server = &self.backend.label;
                match silent {
                    Silent::Server => tracing::warn!(%server, "server hangs or cannot be reached, its calls go to others"),
                    Silent::Connection => tracing::warn!(%server, "server answers on new connections only, an old one is given up"),
                }
                link.close("it has answered nothing for too long");
                Ended::Silent
            }
        }
    }

    /// Resolves when nobody is there, or nothing comes over this connection.
    async fn listen(&self, link: &Arc<Link>, ping: &Ping) -> Silent {
        let mut beats = tokio::time::interval(ping.every / Silence::BEATS);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silence = Silence::default();
        let mut asked: Option<JoinHandle<()>> = None;
        loop {
            beats.tick().await;
            match silence.beat(link.take_heard()) {
                Due::Nothing => {}
                // One at a time: there are servers that move bytes and never answer.
                Due::Ask if asked.as_ref().is_none_or(JoinHandle::is_finished) => {
                    asked = Some(self.ask_beside(ping, link));
                }
                Due::Ask => {}
                Due::AskAnew => {
                    let there = timeout(ping.every, self.is_there(ping)).await.unwrap_or(false);
                    if !there && !link.was_heard() {
                        return Silent::Server;
                    }
                }
                Due::GiveUp => return Silent::Connection,
            }
        }
    }

    /// Asks, and waits for the answer while the beats go on.
    fn ask_beside(&self, ping: &Ping, link: &Arc<Link>) -> JoinHandle<()> {
        let (ping, link, backend) = (ping.clone(), Arc::clone(link), Arc::clone(&self.backend));
        tokio::spawn(async move {
            // The link's end ends it, too.
            if let Ok(pong) = ask(&ping, &link).await {
                backend.load.leaves(pong == Pong::Leaves, Instant::now());
            }
        })
    }

    /// Whether a new connection is answered, if only by being closed: the kernel alone does not do that. What this side lacks, as
    /// files for another connection, says nothing against the server.
    pub(crate) async fn is_there(&self, ping: &Ping) -> bool {
        let link = match self.open().await {
            Ok(link) => link,
            Err(not_made) => return !not_made.silent,
        };
        let _close = CloseOnDrop(&link);
        // Whatever comes, somebody is there.
        let _ = ask(ping, &link).await;
        true
    }

    /// Connects, within the time for it.
    async fn stream(&self) -> Result<Stream, NotMade> {
        let limit = self.config.connect_timeout;
        let label = &self.backend.label;
        match timeout(limit, self.connect_now()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(NotMade {
                reason: Arc::from(format!("{label}: {error}")),
                silent: matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::NetworkDown
                        | ErrorKind::TimedOut
                ),
            }),
            Err(_) => Err(NotMade {
                reason: Arc::from(format!("{label}: no connection within {} ms", limit.as_millis())),
                silent: true,
            }),
        }
    }

    async fn connect_now(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.backend.address).await?;
        socket::tune(&stream)?;
        match &self.config.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Ok(Stream::Secure(Box::new(tls.connect(stream, &self.backend.endpoint.host).await?))),
        }
    }
}

/// A connection that serves no calls, or none yet. Its tasks hold it, so that only closing it ends them, also when the one who waits
/// for an answer on it is dropped.
struct CloseOnDrop<'a>(&'a Link);

impl CloseOnDrop<'_> {
    /// It serves calls from now on.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close("it serves no calls");
    }
}

async fn ask(ping: &Ping, link: &Arc<Link>) -> Result<Pong, Unanswered> {
    let frame = link.ask(|number| ping.call(number)).await?;
    ping.judge(frame).map_err(|refused| Unanswered(Arc::from(refused)))
}

/// Until the next attempt; not much longer than the least when a call waits for it.
pub(crate) async fn pause(tried: Instant, failures: u32, least: Duration, wanted: &Notify) {
    let wanted = async {
        wanted.notified().await;
        tokio::time::sleep_until(tried + least).await;
    };
    // Past the time: nobody waits.
    let _ = timeout(length(failures), wanted).await;
}

/// Doubled for each failure, from half to the whole of it, so that many clients do not come back in step.
fn length(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::net::TcpListener;
    use units::Deadline;
    use wire::Method;

    use super::*;
    use crate::endpoint::Location;
    use crate::testing::{ECHO, Note};
    use crate::{CallOptions, Channel, Endpoint, EndpointId};

    #[test]
    fn pauses_grow_to_less_than_a_second() {
        for failures in 0..100 {
            let pause = length(failures);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
        }
        assert!(length(10) >= LONGEST_PAUSE / 2);
    }

    /// A thousand handshakes a second were made with a server that refused the certificate, by the calls that waited for them.
    #[tokio::test]
    async fn who_refuses_is_not_asked_again_at_once_by_each_call() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let refuses = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
        let health: Method<Note, Note, Note> = Method::new("health", true);
        let ping = Some(Ping::new(Duration::from_secs(20), health, Note::default, |_| Pong::Serves));
        for (address, least) in [(refuses, REFUSED_PAUSE), (gone, FIRST_PAUSE)] {
            let config = ChannelConfig { ping: ping.clone(), ..ChannelConfig::default() };
            let (changed, stop) = (Arc::new(watch::Sender::new(())), CancellationToken::new());
            let at = Location { endpoint: Endpoint::from(address), address, lost: Arc::default() };
            let backend = Backend::start(EndpointId(0), at, &config, &changed, &stop);
            let keeper = Keeper { backend, slot: 0, config, changed, stop: stop.clone() };
            let not_made = keeper.connect().await.err().expect("nobody serves there");
            assert_eq!(not_made.least_pause(), least, "{}", not_made.reason);
            stop.cancel();
        }
    }

    #[tokio::test]
    async fn calls_for_who_refuses_make_few_attempts() {
        let health: Method<Note, Note, Note> = Method::new("health", true);
        let ping = Ping::new(Duration::from_secs(20), health, Note::default, |_| Pong::Serves);
        for ping in [Some(ping), None] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let refuses = listener.local_addr().expect("it is bound");
            let (attempts, attempted) = watch::channel(0);
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    attempts.send_modify(|attempts| *attempts += 1);
                }
            });
            let config = ChannelConfig { ping, ..ChannelConfig::default() };
            let channel = Channel::new(vec![Endpoint::from(refuses)], config);
            let calls = async {
                loop {
                    let options = CallOptions::new(Deadline::after(std::time::Instant::now(), Duration::from_secs(30)));
                    channel.call(&ECHO, &mut Note::of("x"), options).await.expect_err("nobody serves there");
                }
            };
            let _: Result<Infallible, _> = timeout(Duration::from_millis(1_200), calls).await;
            // A pause of 50 ms after each would be more than twenty.
            assert!((3..=8).contains(&*attempted.borrow()), "{}", *attempted.borrow());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_end_a_pause_but_not_its_least_part() {
        let (wanted, time) = (Notify::new(), Duration::from_secs(10));
        for (least, most) in [(FIRST_PAUSE, 200), (REFUSED_PAUSE, 25)] {
            let began = Instant::now();
            let mut attempts = 0;
            while began.elapsed() < time {
                wanted.notify_one();
                pause(Instant::now(), 100, least, &wanted).await;
                attempts += 1;
            }
            assert!(attempts <= most && attempts >= most / 2, "{attempts} in {time:?}");
        }
    }
}
