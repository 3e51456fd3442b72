//! Finds the addresses of names, as the system does: by its files, then by its name servers.
//!
//! Why not tokio's: every thread has channels of its own that follow the same names, and a lookup cannot be taken back. While a name
//! server is silent those that nobody waits for any more would fill the threads for blocking work, and hold up an end of the process.
//! Promises: of one name there is one lookup at a time, however many ask; who asks while it runs, or a moment after it began, gets
//! its answer.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// An answer is good for so long: a lookup for each thread, one right after the other, would all say the same.
const FRESH: Duration = Duration::from_millis(500);

/// Finds the addresses of a name.
pub type Lookup = Arc<dyn Fn(&str, u16) -> Found + Send + Sync>;

/// What a [`Lookup`] finds.
pub type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's way, for the whole process.
pub(crate) fn system() -> Lookup {
    static SYSTEM: LazyLock<Arc<Resolver>> =
        LazyLock::new(|| Resolver::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())));
    SYSTEM.lookup()
}

/// An error that many can be given.
type Answer = Result<Vec<SocketAddr>, (ErrorKind, Arc<str>)>;

/// Takes its time.
type Ask = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Resolver {
    look_up: Box<Ask>,
    asked: Mutex<HashMap<(String, u16), Asked>>,
}

/// The last lookup of a name.
struct Asked {
    began: Instant,
    /// None while it runs.
    answer: watch::Receiver<Option<Answer>>,
}

impl Resolver {
    fn new(look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { look_up: Box::new(look_up), asked: Mutex::default() })
    }

    fn lookup(self: &Arc<Self>) -> Lookup {
        let resolver = Arc::clone(self);
        Arc::new(move |host, port| {
            let asked = resolver.ask(host, port);
            Box::pin(async move {
                let mut answer = asked?;
                let answered = answer.wait_for(Option::is_some).await;
                match answered.ok().as_deref() {
                    Some(Some(Ok(found))) => Ok(found.clone()),
                    Some(Some(Err((kind, reason)))) => Err(io::Error::new(*kind, reason.to_string())),
                    Some(None) | None => Err(io::Error::other("the lookup broke off")),
                }
            })
        })
    }

    /// The lookup that will answer, begun now if need be.
    fn ask(self: &Arc<Self>, host: &str, port: u16) -> io::Result<watch::Receiver<Option<Answer>>> {
        let mut asked = self.asked.lock();
        let now = Instant::now();
        if let Some(last) = asked.get(&(host.to_owned(), port))
            && last.serves(now)
        {
            return Ok(last.answer.clone());
        }
        let (sender, answer) = watch::channel(None);
        let (resolver, name) = (Arc::clone(self), host.to_owned());
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            let found = (resolver.look_up)(&name, port);
            sender.send_replace(Some(found.map_err(|error| (error.kind(), Arc::from(error.to_string())))));
        })?;
        asked.insert((host.to_owned(), port), Asked { began: now, answer: answer.clone() });
        Ok(answer)
    }
}

impl Asked {
    /// Whether who asks now is answered by it.
    fn serves(&self, now: Instant) -> bool {
        match self.answer.borrow().is_some() {
            true => now < self.began + FRESH,
            // Else its thread has ended without an answer.
            false => self.answer.has_changed().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc;

    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9090))
    }

    /// 64 threads had a name looked up each second, and lookups that nobody waited for any more filled the pool.
    #[tokio::test(start_paused = true)]
    async fn one_lookup_of_a_name_runs_at_a_time_whoever_asks_and_for_how_long_ever() {
        let (begun, (answer, answers)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        let (counted, answers) = (Arc::clone(&begun), Mutex::new(answers));
        let lookup = Resolver::new(move |_, _| {
            counted.fetch_add(1, Relaxed);
            answers.lock().recv().expect("the test answers")
        })
        .lookup();
        for _ in 0..10 {
            let given_up = tokio::time::timeout(10 * FRESH, lookup("servers.test", 9090)).await;
            assert!(given_up.is_err(), "{given_up:?}");
        }
        let waits = lookup("servers.test", 9090);
        answer.send(Ok(vec![address()])).expect("it waits");
        assert_eq!(waits.await.expect("it is answered"), [address()]);
        assert_eq!(begun.load(Relaxed), 1);
        answer.send(Ok(vec![])).expect("it waits");
        assert!(lookup("servers.test", 9090).await.expect("it is answered").is_empty(), "that answer was old");
        assert_eq!(begun.load(Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_all_who_ask_a_moment_later_and_a_failure_as_well() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let lookup = Resolver::new(move |_, _| match counted.fetch_add(1, Relaxed) {
            0 => Ok(vec![address()]),
            _ => Err(io::Error::new(ErrorKind::NotFound, "no such name")),
        })
        .lookup();
        for _ in 0..100 {
            assert_eq!(lookup("servers.test", 9090).await.expect("it is found"), [address()]);
        }
        tokio::time::advance(FRESH).await;
        for _ in 0..100 {
            let error = lookup("servers.test", 9090).await.expect_err("it has gone");
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, "no such name".to_owned()));
        }
        assert_eq!(begun.load(Relaxed), 2);
        lookup("others.test", 9090).await.expect_err("another name is looked up for itself");
        assert_eq!(begun.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_lookup_that_broke_off_is_begun_again() {
        let begun = AtomicUsize::new(0);
        let lookup = Resolver::new(move |_, _| match begun.fetch_add(1, Relaxed) {
            0 => panic!("the system's resolver failed"),
            _ => Ok(vec![address()]),
        })
        .lookup();
        let error = lookup("servers.test", 9090).await.expect_err("nobody answered");
        assert_eq!(error.to_string(), "the lookup broke off");
        assert_eq!(lookup("servers.test", 9090).await.expect("it is answered"), [address()]);
    }
}
