//! A server with a file of keys: who may call what, by which name, and for how long.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use idl::base::Base;
use idl::chat::{ChatRequest, NextRequest, StartRequest, StopRequest};
use idl::fault::{Fault, FaultCode};
use idl::health::{CheckReply, CheckRequest};
use idl::inference::{
    CancelRequest, ClassifyReply, ClassifyRequest, EmbedRequest, InferRequest, ModelsReply, ModelsRequest,
};
use idl::methods;
use keys::{Scope, Secret};
use tempfile::TempDir;

use crate::calls::{classify, fault, slow};
use crate::program::{Running, answer, call};

/// A server whose callers need keys, and the file of them.
struct Guarded {
    server: Running,
    folder: TempDir,
}

impl Guarded {
    fn start(settings: &[&str]) -> Self {
        Self::with(|setting| Running::start(&[&[setting], settings].concat()))
    }

    fn with(start: impl FnOnce(&str) -> Running) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("keys.toml");
        keys::change(&file, |_| Ok(())).unwrap();
        let server = start(&format!("keys={}", file.display()));
        Self { server, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    /// A key that the server knows by the time that this returns.
    fn key(&mut self, name: &str, scopes: &[Scope], expires: Option<SystemTime>) -> String {
        let secret = Secret::generate().unwrap();
        let scopes = scopes.iter().copied().collect();
        keys::change(&self.file(), |keys| keys.add(name, &secret, scopes, SystemTime::UNIX_EPOCH, expires)).unwrap();
        self.follows();
        secret.expose().to_owned()
    }

    /// Waits until the server has the file as it is.
    fn follows(&mut self) {
        let count = keys::read(&self.file()).unwrap().entries().len() as f64;
        self.server.wait_until("the keys", |it| it.metric("outboard_server_keys ") == count);
    }

    fn classify(&self, request_id: &str, key: Option<&str>) -> Result<ClassifyReply, Fault> {
        let mut request = classify(request_id);
        request.base.as_mut().unwrap().key = key.map(str::to_owned);
        self.server.call(&methods::CLASSIFY, &request).unwrap()
    }

    fn models(&self, key: &str) -> Result<ModelsReply, Fault> {
        self.server.call(&methods::MODELS, &ModelsRequest { base: with(key), ..ModelsRequest::default() }).unwrap()
    }
}

fn with(key: &str) -> Option<Base> {
    Some(Base { key: Some(key.to_owned()), ..Base::default() })
}

#[test]
fn without_a_key_nothing_is_answered_but_health() {
    let guarded = Guarded::start(&[]);
    let server = &guarded.server;
    let refused = [
        fault(server.call(&methods::MODELS, &ModelsRequest::default())),
        fault(server.call(&methods::CLASSIFY, &ClassifyRequest::default())),
        fault(server.call(&methods::INFER, &InferRequest::default())),
        fault(server.call(&methods::EMBED, &EmbedRequest::default())),
        fault(server.call(&methods::COMPLETE, &ChatRequest::default())),
        fault(server.call(&methods::START, &StartRequest::default())),
        fault(server.call(&methods::NEXT_PIECES, &NextRequest::default())),
        fault(server.call(&methods::STOP, &StopRequest::default())),
        // What a caller calls itself proves nothing.
        fault(server.call(
            &methods::CLASSIFY,
            &ClassifyRequest {
                base: Some(Base { caller: Some("gateway".to_owned()), key: Some(String::new()), ..Base::default() }),
                ..ClassifyRequest::default()
            },
        )),
    ];
    for fault in &refused {
        assert_eq!(fault.code, Some(FaultCode::UNAUTHENTICATED), "{fault:?}");
        assert_eq!(
            (fault.message.as_deref(), fault.param.as_deref()),
            (Some("a key is needed here"), Some("base.key"))
        );
    }
    let health = server.call(&methods::CHECK, &CheckRequest::default()).unwrap().unwrap();
    assert_eq!(health.live, Some(true));
    assert_eq!(server.metric("outboard_server_refused_keys_total{name=\"no_key\"}"), refused.len() as f64);
    let counted = "outboard_server_calls_total{method=\"classify\",outcome=\"unauthenticated\"}";
    let code = fault::Kind::Unauthenticated.row().code;
    assert_eq!(server.metric(&counted.replace("unauthenticated", code)), 2.0);
}

#[test]
fn a_key_opens_what_its_scopes_say_and_names_the_caller_until_it_is_revoked() {
    let mut guarded = Guarded::start(&[]);
    let ann = guarded.key("ann", &[Scope::Infer], None);
    let viewer = guarded.key("viewer", &[Scope::HistoryRead, Scope::Admin], None);
    let old = guarded.key("old", &[Scope::Infer], Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));

    assert!(guarded.classify("request-of-ann", Some(&ann)).is_ok());
    assert_eq!(guarded.models(&ann).unwrap().models.map(|models| models.len()), Some(1));
    // Any key may see what is served.
    assert!(guarded.models(&viewer).is_ok());
    for (key, code, says) in [
        (viewer.as_str(), FaultCode::FORBIDDEN, "the key `viewer` is not for infer, it is for history.read, admin"),
        (&old, FaultCode::UNAUTHENTICATED, "the key `old` has expired"),
        (Secret::generate().unwrap().expose(), FaultCode::UNAUTHENTICATED, "the key is not known here"),
        ("password", FaultCode::UNAUTHENTICATED, "this is no key of Outboard"),
    ] {
        let refused = guarded.classify("refused-request", Some(key)).unwrap_err();
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.message.as_deref().unwrap().starts_with(says), "{refused:?}");
        assert_eq!(refused.request_id.as_deref(), Some("refused-request"));
    }
    for (name, count) in [("scope", 1.0), ("expired_key", 1.0), ("unknown_key", 2.0), ("no_key", 0.0)] {
        let series = format!("outboard_server_refused_keys_total{{name=\"{name}\"}}");
        assert_eq!(guarded.server.metric(&series), count, "{name}");
    }

    keys::change(&guarded.file(), |keys| keys.revoke("ann")).unwrap();
    guarded.follows();
    assert_eq!(guarded.classify("too-late-for-ann", Some(&ann)).unwrap_err().code, Some(FaultCode::UNAUTHENTICATED));
    // A mistake in the file locks nobody out.
    std::fs::write(guarded.file(), "no keys").unwrap();
    guarded.server.wait_until("the mistake", |it| it.metric("outboard_server_key_file_errors_total ") == 1.0);
    assert!(guarded.models(&viewer).is_ok());

    let (_, log) = guarded.server.stop();
    for (id, caller) in [("request-of-ann", "ann"), ("too-late-for-ann", "anonymous@127.0.0.1")] {
        let line = log.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("no {id} in {log}"));
        assert!(line.contains(&format!("\"caller\":\"{caller}\"")), "{line}");
    }
    for key in [&ann, &viewer, &old] {
        assert!(!log.contains(key.as_str()), "a key is in the log");
    }
}

#[test]
fn a_call_is_cancelled_with_its_key_from_any_connection_and_with_no_other() {
    let mut guarded = Guarded::start(&["limits.decode_threads=1"]);
    let (ann, bob) = (guarded.key("ann", &[Scope::Infer], None), guarded.key("bob", &[Scope::Infer], None));
    let mut busy: Vec<_> = (0..24).map(|_| guarded.server.connect()).collect();
    let mut long = slow("keeps-the-decoder-busy");
    long.base.as_mut().unwrap().key = Some(bob.clone());
    for stream in &mut busy {
        stream.write_all(&call("classify", &long)).unwrap();
    }
    let id = Bytes::from_static(&[9; 16]);
    let mut request = slow("to-be-cancelled");
    let base = request.base.as_mut().unwrap();
    (base.call_id, base.key) = (Some(id.clone()), Some(ann.clone()));
    let mut owner = guarded.server.connect();
    owner.write_all(&call("classify", &request)).unwrap();
    guarded.server.wait_until("its start", |it| it.metric("outboard_server_calls_in_flight ") >= 25.0);

    let mut elsewhere = guarded.server.connect();
    let cancelled = "outboard_server_calls_total{method=\"classify\",outcome=\"cancelled\"}";
    for base in [None, with(&bob), with(&ann)] {
        assert_eq!(guarded.server.metric(cancelled), 0.0, "by somebody else");
        let cancel = CancelRequest { base, call_id: Some(id.clone()) };
        elsewhere.write_all(&call("cancel", &cancel)).unwrap();
        elsewhere.write_all(&call("check", &CheckRequest::default())).unwrap();
        assert!(answer(&mut elsewhere).result::<CheckReply, Fault>().is_ok());
    }
    let refused = fault(answer(&mut owner).result::<ClassifyReply, Fault>());
    assert_eq!(refused.code, Some(FaultCode::CANCELLED), "{refused:?}");
    for (outcome, count) in [("ok", 2.0), (fault::Kind::Unauthenticated.row().code, 1.0)] {
        let series = format!("outboard_server_calls_total{{method=\"cancel\",outcome=\"{outcome}\"}}");
        assert_eq!(guarded.server.metric(&series), count, "{outcome}");
    }
}

/// Kitex and Volo have no `Base` in their hands, but metainfo.
#[test]
fn a_ttheader_carries_the_key() {
    let mut guarded = Guarded::start(&[]);
    let ann = guarded.key("ann", &[Scope::Infer], None);
    for (key, count) in [(ann.as_str(), 1.0), ("ob_unknown", 0.0)] {
        let mut header = vec![0, 0, 1, 0, 1];
        for text in ["RPC_TRANSIT_OUTBOARD_KEY", key] {
            header.extend_from_slice(&(text.len() as u16).to_be_bytes());
            header.extend_from_slice(text.as_bytes());
        }
        header.resize(header.len().next_multiple_of(4), 0);
        let message = call("models", &ModelsRequest::default());
        let mut frame = vec![0x10, 0, 0, 0, 0, 0, 0, 7];
        frame.extend_from_slice(&(header.len() as u16 / 4).to_be_bytes());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&message);
        let mut stream = guarded.server.connect();
        stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(&frame).unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
        let series = "outboard_server_calls_total{method=\"models\",outcome=\"ok\"}";
        assert_eq!(guarded.server.metric(series), 1.0, "{key}");
        assert_eq!(guarded.server.metric("outboard_server_refused_keys_total"), 1.0 - count, "{key}");
    }
}

#[test]
fn metrics_of_a_listener_that_others_reach_need_a_key_for_admin() {
    let mut guarded = Guarded::with(|setting| Running::start_everywhere(&[setting]));
    // Nobody can ask how many keys the server has read: it is asked until it knows the new one.
    let secret = Secret::generate().unwrap();
    let add =
        |keys: &mut keys::Keys| keys.add("prometheus", &secret, [Scope::Admin].into(), SystemTime::UNIX_EPOCH, None);
    keys::change(&guarded.file(), add).unwrap();
    let with_key = format!("/metrics HTTP/1.1\r\nauthorization: Bearer {}\r\nx-rest:", secret.expose());
    guarded.server.wait_until("the key", |it| it.page(&with_key).is_some_and(|page| page.contains(" 200 ")));
    let without = guarded.server.page("/metrics").unwrap();
    assert!(without.starts_with("HTTP/1.1 401 ") && !without.contains("outboard_"), "{without}");
}
