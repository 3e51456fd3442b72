//! The requests that `models pull` makes of a hub.
//!
//! Why no client of the hub: the one there is makes paths of the headers `ETag` and `X-Repo-Commit` as they come, and sends the
//! token to wherever a redirect leads.
//! Promises: what a hub says names no file, only the caller does; the token goes to no other host than the hub's; a download goes on
//! where it stopped.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ureq::config::RedirectAuthHeaders;
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

use crate::exit::{Failure, NO, UNREACHABLE};

/// Attempts at one file, each of which goes on where the one before stopped.
const ATTEMPTS: u32 = 4;

/// A hub that says nothing for so long is not waited for: an attempt at a file is over, and goes on where it stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// The hub of the environment.
pub(super) struct Hub {
    /// Without a slash at its end.
    pub(super) endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// Why one attempt at a file did not bring it to its end.
enum Stopped {
    /// Another attempt may.
    Lost(Failure),
    Refused(Failure),
}

impl Hub {
    pub(super) fn from_env() -> Self {
        let endpoint = env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned());
        let token = env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned());
        Self::new(&endpoint, token.filter(|token| !token.is_empty()), PATIENCE)
    }

    fn new(endpoint: &str, token: Option<String>, patience: Duration) -> Self {
        let agent = Agent::config_builder()
            .user_agent(concat!("outboard/", env!("CARGO_PKG_VERSION")))
            // A renamed repository is a redirect of the same host; large files lie with others.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(patience))
            .timeout_per_read(Some(patience))
            .build();
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, agent: agent.into() }
    }

    fn get(&self, path: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(format!("{}/{path}", self.endpoint));
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// What the hub says about a repository, as JSON.
    pub(super) fn list(&self, repository: &str, revision: &str) -> Result<String, Failure> {
        let path = format!("api/models/{repository}/revision/{}?blobs=true", revision.replace('/', "%2F"));
        let text = self.get(&path).call().and_then(|mut answer| answer.body_mut().read_to_string());
        text.map_err(|error| match error {
            // The hub does not say whether a repository is there to those who may not know.
            ureq::Error::StatusCode(401 | 403 | 404) => Failure::new(
                NO,
                format!("no repository {repository} at {revision} on {}, or not for this HF_TOKEN", self.endpoint),
            ),
            other => self.failed(repository, &other),
        })
    }

    /// Brings a file of a repository at a commit to its end in `part`, from what is there of it.
    pub(super) fn download(
        &self,
        (repository, commit): (&str, &str),
        name: &str,
        size: Option<u64>,
        part: &Path,
    ) -> Result<(), Failure> {
        let bar = bar(name, size);
        let path = format!("{repository}/resolve/{commit}/{name}");
        let mut attempt = 1;
        loop {
            let failure = match self.go_on(&path, name, size, part, &bar) {
                Ok(()) => {
                    bar.finish();
                    return Ok(());
                }
                Err(Stopped::Lost(failure)) if attempt < ATTEMPTS => failure,
                Err(Stopped::Lost(failure) | Stopped::Refused(failure)) => return Err(failure),
            };
            bar.set_message(failure.message);
            sleep(Duration::from_millis(100) * 2_u32.pow(attempt));
            bar.set_message(name.to_owned());
            attempt += 1;
        }
    }

    fn go_on(&self, path: &str, name: &str, size: Option<u64>, part: &Path, bar: &ProgressBar) -> Result<(), Stopped> {
        let lost = |error: io::Error| Stopped::Lost(Failure::new(UNREACHABLE, format!("{name}: {error}")));
        let broken = |error: io::Error| Stopped::Refused(Failure::new(NO, format!("{}: {error}", part.display())));
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(broken)?;
        let mut from = file.metadata().map_err(broken)?.len();
        if size.is_some_and(|size| from > size) {
            from = begin_anew(&file).map_err(broken)?;
        }
        if size == Some(from) {
            return Ok(());
        }
        let request = self.get(path).header("Range", format!("bytes={from}-")).header("Accept-Encoding", "identity");
        let answer = request.call().map_err(|error| {
            let failure = self.failed(name, &error);
            match error {
                ureq::Error::StatusCode(416) => {
                    // What is there is no beginning of what the hub has.
                    let _ = fs::remove_file(part);
                    Stopped::Lost(failure)
                }
                ureq::Error::StatusCode(code) if code < 500 => Stopped::Refused(failure),
                _ => Stopped::Lost(failure),
            }
        })?;
        if answer.status().as_u16() == 206 {
            let range = answer.headers().get("Content-Range").and_then(|range| range.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {from}-")) {
                let failure = format!("{name}: the hub's Content-Range is {range:?}, asked for was all from {from}");
                return Err(Stopped::Refused(Failure::new(NO, failure)));
            }
        } else {
            // A hub that knows no ranges begins at the beginning.
            from = begin_anew(&file).map_err(broken)?;
        }
        bar.set_position(from);
        // One more than there should be, so that too much is seen.
        let most = size.map_or(u64::MAX, |size| size - from + 1);
        let body = answer.into_body().into_reader().take(most);
        let count = io::copy(&mut bar.wrap_read(body), &mut file).map_err(lost)?;
        if size.is_some_and(|size| from + count < size) {
            return Err(lost(ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn failed(&self, what: &str, error: &ureq::Error) -> Failure {
        let reached = matches!(error, ureq::Error::StatusCode(_));
        Failure::new(if reached { NO } else { UNREACHABLE }, format!("{what} from {}: {error}", self.endpoint))
    }
}

fn begin_anew(file: &File) -> io::Result<u64> {
    file.set_len(0).map(|()| 0)
}

fn bar(name: &str, size: Option<u64>) -> ProgressBar {
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_message(name.to_owned());
    match ProgressStyle::with_template("{msg} [{elapsed_precise}] [{wide_bar}] {bytes}/{total_bytes} ({eta})") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    /// It was waited for without an end.
    #[test]
    fn a_hub_that_falls_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let hub = Hub::new(&address, None, Duration::from_millis(50));
        // Until the end of the test: first nothing at all, then the beginning of a body.
        let silent = std::thread::spawn(move || {
            let first = listener.accept().expect("a client").0;
            let mut second = listener.accept().expect("a client").0;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
            second.write_all(head).expect("the client reads");
            (first, second)
        });
        for _ in 0..2 {
            let failure = hub.list("o/m", "main").expect_err("nothing comes");
            assert_eq!(failure.status, UNREACHABLE, "{}", failure.message);
        }
        drop(silent.join());
    }
}
