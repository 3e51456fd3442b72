use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, version};
use tokio_util::sync::CancellationToken;
use units::Deadline;
use wire::{ApplicationErrorKind, Method, Protocol, Request, ResponseError};

use super::*;
use crate::connection::Connection;
use crate::endpoint::{Backend, Location};
use crate::handshake::accept;
use crate::keeper::Keeper;
use crate::outbound::KEPT;
use crate::server::Shared;
use crate::testing::{ECHO, Note, Notes, Raw, Running, call, serve, text_call};
use crate::{
    CallContext, CallFuture, CallOptions, Channel, ChannelConfig, ChannelError, Drain, Endpoint, EndpointId,
    HandshakeFailure, Instead, Limit, Peer, Ping, Pong, Refusal, Server, ServerLimits, ServerStats, Service,
};
use followed::Source as _;

const SERVER: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth];
const CLIENT: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ClientAuth];

/// Issues certificates into files of a folder, for one purpose each, as OPERATIONS.md does.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
struct Says {
    common: &'static str,
    dns: &'static [&'static str],
    uri: &'static [&'static str],
    last_year: i32,
}

impl Default for Says {
    fn default() -> Self {
        Self { common: "", dns: &["localhost"], uri: &[], last_year: 2100 }
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let folder = TempDir::with_prefix("outboard-tls-").expect("a folder");
        let root = params.self_signed(&key).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), root.pem()).expect("written");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// The files of a new certificate and its key; those of the same `name` are replaced.
    fn issue(&self, name: &str, purpose: &[ExtendedKeyUsagePurpose], says: &Says) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.extended_key_usages = purpose.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !says.common.is_empty() {
            params.distinguished_name.push(DnType::CommonName, says.common);
        }
        let text = |text: &&str| (*text).try_into().expect("ASCII");
        params.subject_alt_names.extend(says.dns.iter().map(|name| SanType::DnsName(text(name))));
        params.subject_alt_names.extend(says.uri.iter().map(|name| SanType::URI(text(name))));
        params.not_after = date_time_ymd(says.last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        fs::write(&files.0, certificate.pem()).expect("written");
        fs::write(&files.1, key.serialize_pem()).expect("written");
        files
    }

    fn server(&self, name: &str, says: &Says) -> ServerTlsSettings {
        let (certificate, key) = self.issue(name, SERVER, says);
        ServerTlsSettings { certificate, key, client_ca: None, min_version: TlsVersion::Tls12 }
    }

    fn trusts(&self) -> ClientTlsSettings {
        ClientTlsSettings { ca: Some(self.ca()), certificate: None, server_name: Some("localhost".to_owned()) }
    }

    fn shows(&self, name: &str, says: &Says) -> ClientTlsSettings {
        ClientTlsSettings { certificate: Some(self.issue(name, CLIENT, says)), ..self.trusts() }
    }
}

async fn serve_by(tls: ServerTlsSettings, limits: ServerLimits) -> Running {
    let notes = Arc::new(Notes::default());
    let (server, address, stats) = bind(tls, limits).await;
    let (drain, watched) = Drain::new(Drain::LIMIT);
    let task = tokio::spawn(server.serve(Arc::clone(&notes), watched));
    Running { address, notes, stats, drain, task }
}

async fn bind(tls: ServerTlsSettings, limits: ServerLimits) -> (Server, SocketAddr, Arc<ServerStats>) {
    let stats = Arc::new(ServerStats::default());
    let server = Server::bind("127.0.0.1:0".parse().expect("an address"), limits).await.expect("a free port");
    let server = server.secured_by(ServerTls::new(tls).expect("good files")).observed_by(Arc::clone(&stats) as _);
    let address = server.local_addr().expect("it is bound");
    (server, address, stats)
}

fn channel(address: SocketAddr, tls: ClientTlsSettings) -> Channel {
    let tls = Some(ClientTls::new(tls).expect("good files"));
    let config = ChannelConfig { connect_timeout: Duration::from_secs(20), tls, ..ChannelConfig::default() };
    Channel::new(vec![Endpoint::from(address)], config)
}

/// The same, asking whether the server is there, as gateways do.
fn pinging(address: SocketAddr, tls: Option<ClientTlsSettings>) -> Channel {
    let tls = tls.map(|tls| ClientTls::new(tls).expect("good files"));
    let (connect_timeout, ping) = (Duration::from_secs(20), Some(health()));
    Channel::new(
        vec![Endpoint::from(address)],
        ChannelConfig { connect_timeout, tls, ping, ..ChannelConfig::default() },
    )
}

fn health() -> Ping {
    let health: Method<Note, Note, Note> = Method::new("health", true);
    // What is looked at is what comes, and not how soon.
    Ping::new(Duration::from_secs(10), health, Note::default, |_| Pong::Serves)
}

fn options() -> CallOptions {
    CallOptions::new(Deadline::after(Instant::now(), Duration::from_secs(30)))
}

/// Why a call has no answer.
async fn refusal(address: SocketAddr, tls: ClientTlsSettings) -> String {
    channel(address, tls).call(&ECHO, &mut Note::of("x"), options()).await.expect_err("no answer").to_string()
}

async fn connect(address: SocketAddr, tls: &ClientTlsSettings) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    ClientTls::new(tls.clone()).expect("good files").connect(stream, "localhost").await.map(Raw::over)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < limit, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn calls_of_all_sizes_go_through_many_at_a_time() {
    let authority = Authority::new("ours");
    for min_version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let settings = ServerTlsSettings { min_version, ..authority.server("server", &Says::default()) };
        let server = serve_by(settings, ServerLimits::default()).await;
        let channel = channel(server.address, authority.trusts());
        let calls = (0..60_usize).map(|n| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let size = [0, 1, 1_000, 70_000, 3_000_000][n % 5];
                let sent = Note::of(vec![n as u8; size]);
                let answer = channel.call(&ECHO, &mut sent.clone(), options()).await;
                let note = answer.expect("an answer").expect("a result");
                assert!(note.data == sent.data, "{n}");
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panic");
        }
        assert_eq!(server.stats.connections_total.load(Relaxed), 1);
        server.drain.start();
        server.task.await.expect("no panic");
    }
}

#[tokio::test]
async fn an_answer_that_its_peer_reads_late_arrives_whole() {
    let authority = Authority::new("ours");
    let server = serve_by(authority.server("server", &Says::default()), ServerLimits::default()).await;
    let mut raw = connect(server.address, &authority.trusts()).await.expect("good certificates");
    // More than the buffers on the way take, so that the end of it stays behind in those of TLS.
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for (seqid, name) in (1..).zip(names) {
        let note = Note { left_ms: 1_000_000, ..Note::of(name) };
        raw.send(&call(Protocol::Binary, "swell", seqid, &note)).await;
    }
    server.notes.until(|happened| happened.started == 8).await;
    for name in names {
        server.notes.open(name);
    }
    server.notes.until(|happened| happened.answered == 8).await;
    for _ in 1..=8 {
        let note = raw.response().await.result::<Note, Note>().expect("it decodes").expect("a result");
        assert_eq!(note.data.len(), 1_000_000);
    }
}

#[tokio::test]
async fn what_tls_keeps_of_an_answer_leaves_when_there_is_room() {
    let authority = Authority::new("ours");
    let tls = ServerTls::new(authority.server("server", &Says::default())).expect("good files");
    let (notes, stats) = (Arc::new(Notes::default()), Arc::new(ServerStats::default()));
    let (_drain, watched) = Drain::new(Drain::LIMIT);
    let shared = Arc::new(Shared::new(notes.clone(), ServerLimits::default(), stats.clone() as _, watched));
    // Room for less than the answer, all of which TLS takes at once.
    let (near, far) = tokio::io::duplex(1_024);
    let serving = tokio::spawn(async move {
        let stream = tls.acceptor().accept(far).await.expect("a handshake");
        let peer = Peer::new("127.0.0.1:1".parse().expect("an address"), 1);
        Connection::new(stream, Arc::new(peer), shared).run().await;
    });
    let name = "localhost".try_into().expect("a name");
    let trusts = authority.trusts().make().expect("good files");
    let mut raw = Raw::over(trusts.connector().connect(name, near).await.expect("a handshake"));
    raw.send(&call(Protocol::Binary, "echo", 1, &Note::of(vec![7; 10_000]))).await;
    notes.until(|happened| happened.answered == 1).await;
    until("the answer to be written", || stats.bytes_out_total.load(Relaxed) >= 10_000).await;
    until("what TLS keeps to be counted", || stats.bytes_in_flight.load(Relaxed) >= KEPT).await;
    let answer = tokio::time::timeout(Duration::from_secs(30), raw.response()).await.expect("nothing keeps it");
    let note = answer.result::<Note, Note>().expect("it decodes").expect("a result");
    assert_eq!(note.data.len(), 10_000);
    drop(raw);
    serving.await.expect("no panic");
    assert_eq!(stats.bytes_in_flight.load(Relaxed), 0);
}

/// Answers with the name of its caller.
struct Who;

impl Service for Who {
    fn call(&self, request: Request, call: CallContext) -> CallFuture {
        let name = call.peer.caller().to_string();
        Box::pin(async move { Some(request.reply(&Note::of(name))) })
    }

    fn refuse(&self, request: &Request, why: Refusal) -> Instead {
        Instead::Refused(Some(request.exception(&Note::of(why.name()))))
    }
}

#[tokio::test]
async fn a_caller_is_who_its_certificate_says_and_without_one_its_address() {
    let authority = Authority::new("ours");
    let spiffe = Says { uri: &["spiffe://example.org/gateway"], ..Says::default() };
    let person = Says { common: "Ann", dns: &[], ..Says::default() };
    for (mutual, client, name) in [
        (true, authority.shows("gateway", &spiffe), "spiffe://example.org/gateway"),
        (true, authority.shows("dns", &Says { dns: &["batch.internal"], ..Says::default() }), "batch.internal"),
        (true, authority.shows("person", &person), "CN=Ann"),
        (false, authority.shows("unasked", &spiffe), "anonymous@127.0.0.1"),
    ] {
        let settings = ServerTlsSettings {
            client_ca: mutual.then(|| authority.ca()),
            ..authority.server("server", &Says::default())
        };
        let (server, address, _) = bind(settings, ServerLimits::default()).await;
        let (_drain, watched) = Drain::new(Drain::LIMIT);
        tokio::spawn(server.serve(Arc::new(Who), watched));
        let note = channel(address, client).call(&ECHO, &mut Note::of("I am the boss"), options()).await;
        assert_eq!(note.expect("an answer").expect("a result").data, name);
    }
}

#[tokio::test]
async fn who_has_no_good_certificate_is_told_why_and_counted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let settings = ServerTlsSettings { client_ca: Some(ours.ca()), ..ours.server("server", &Says::default()) };
    let server = serve_by(settings, ServerLimits::default()).await;
    let stranger = ClientTlsSettings { ca: Some(ours.ca()), ..theirs.shows("client", &Says::default()) };
    let old = ours.shows("old", &Says { last_year: 2001, ..Says::default() });
    let nobody = ours.shows("nobody", &Says { dns: &[], ..Says::default() });
    let by = |certificate| ClientTlsSettings { certificate: Some(certificate), ..ours.trusts() };
    let server_s = by(ours.issue("gpu-1", SERVER, &Says::default()));
    for (client, why, told) in [
        (ours.trusts(), HandshakeFailure::NoCertificate, "it wants a client certificate"),
        (stranger, HandshakeFailure::Certificate, "it does not trust the issuer of this side's certificate"),
        (old, HandshakeFailure::Certificate, "it says that this side's certificate has expired"),
        (nobody, HandshakeFailure::Certificate, "the client certificate names nobody"),
        (
            server_s,
            HandshakeFailure::Certificate,
            "it says that this side's certificate is for another purpose (extendedKeyUsage)",
        ),
    ] {
        let before = server.stats.handshakes_failed(why);
        let asks = pinging(server.address, Some(client.clone()));
        let refused = refusal(server.address, client).await;
        assert!(refused.contains(told), "{refused}");
        let error = asks.call(&ECHO, &mut Note::of("x"), options()).await.expect_err("no answer");
        assert!(error.never_started() && error.to_string().contains(told), "{error}");
        assert!(server.stats.handshakes_failed(why) > before, "{told}");
    }
    assert_eq!(server.notes.happened().started, 0, "no call of theirs was made");
    // One that does not say what it is for is for everything.
    for good in [CLIENT, &[]] {
        let good = channel(server.address, by(ours.issue("good", good, &Says::default())));
        good.call(&ECHO, &mut Note::of("x"), options()).await.expect("an answer").expect("a result");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_is_not_called_and_the_reason_is_exact() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let other = Says { dns: &["gpu-1.internal", "gpu-2.internal"], ..Says::default() };
    let old = Says { last_year: 2001, ..Says::default() };
    let (certificate, key) = ours.issue("gateway", CLIENT, &Says::default());
    let client_s = ServerTlsSettings { certificate, key, ..ours.server("server", &Says::default()) };
    for (settings, told) in [
        (theirs.server("server", &Says::default()), "its certificate is of an issuer that is not trusted here"),
        (
            ours.server("other", &other),
            "its certificate is for DnsName(\"gpu-1.internal\"), DnsName(\"gpu-2.internal\"), not for localhost",
        ),
        (ours.server("old", &old), "its certificate has expired at 2001-01-01T00:00:00Z"),
        (client_s, "its certificate is for client authentication, not for server authentication (extendedKeyUsage)"),
    ] {
        let server = serve_by(settings, ServerLimits::default()).await;
        let refused = refusal(server.address, ours.trusts()).await;
        assert_eq!(refused, format!("none of 1 servers can be reached: {}: {told}", server.address));
        let refused = || server.stats.handshakes_failed(HandshakeFailure::Refused) > 0;
        until("the server to know it, too", refused).await;
        assert_eq!(server.notes.happened().started, 0);
    }
}

/// A server at the limit of its connections was taken for one that hangs, and the connections that it had were closed.
#[tokio::test]
async fn who_ends_a_handshake_is_there_and_who_says_nothing_is_not() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let strange = serve_by(theirs.server("server", &Says::default()), ServerLimits::default()).await;
    let any_port = || TcpListener::bind("127.0.0.1:0");
    let closing = any_port().await.expect("a free port");
    let closes = closing.local_addr().expect("it is bound");
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    let silent = any_port().await.expect("a free port");
    let nobody = any_port().await.expect("a free port").local_addr().expect("it is bound");
    let (long, short) = (Duration::from_secs(20), Duration::from_millis(50));
    for (address, connect_timeout, there) in [
        (strange.address, long, true),
        (closes, long, true),
        (silent.local_addr().expect("it is bound"), short, false),
        (nobody, long, false),
    ] {
        let tls = Some(ClientTls::new(ours.trusts()).expect("good files"));
        let config = ChannelConfig { connect_timeout, tls, ..ChannelConfig::default() };
        let (changed, stop) = (Arc::new(watch::Sender::new(())), CancellationToken::new());
        let at = Location { endpoint: Endpoint::from(address), address, lost: Arc::default() };
        let backend = Backend::start(EndpointId(0), at, &config, &changed, &stop);
        let keeper = Keeper { backend, slot: 0, config, changed, stop: stop.clone() };
        assert_eq!(keeper.is_there(&health()).await, there, "{address}");
        stop.cancel();
    }
}

#[tokio::test]
async fn a_name_that_is_asked_for_takes_the_place_of_the_address() {
    let authority = Authority::new("ours");
    let server = serve_by(authority.server("server", &Says::default()), ServerLimits::default()).await;
    let by_address = ClientTlsSettings { server_name: None, ..authority.trusts() };
    let refused = refusal(server.address, by_address).await;
    assert!(refused.ends_with("its certificate is for DnsName(\"localhost\"), not for 127.0.0.1"), "{refused}");
    let wrong = ClientTls::new(ClientTlsSettings { server_name: Some("no name".to_owned()), ..authority.trusts() });
    let told = wrong.expect_err("a space").to_string();
    assert_eq!(told, "\"no name\" is neither a name nor an address that a certificate could be for");
}

#[tokio::test]
async fn who_speaks_without_tls_is_told_in_what_it_speaks() {
    let authority = Authority::new("ours");
    let server = serve_by(authority.server("server", &Says::default()), ServerLimits::default()).await;
    for big in [10, 100_000] {
        let mut raw = Raw::connect(server.address).await;
        raw.send(&call(Protocol::Compact, "echo", 7, &Note::of(vec![1; big]))).await;
        let response = raw.response().await;
        let Err(ResponseError::Application { kind, message }) = response.result::<Note, Note>() else {
            panic!("no exception of the protocol");
        };
        assert_eq!((response.seqid, kind), (7, ApplicationErrorKind::UnsupportedClientType));
        assert!(message.contains("speaks TLS"), "{message}");
        assert_eq!(raw.rest().await, b"");
    }
    assert_eq!(server.stats.handshakes_failed(HandshakeFailure::Plain), 2);
    let mut http = Raw::connect(server.address).await;
    http.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(http.rest().await.starts_with(b"HTTP/1.1 400"));
    // Our own channel says it in its error.
    let plain = Channel::new(vec![Endpoint::from(server.address)], ChannelConfig::default());
    let error = plain.call(&ECHO, &mut Note::of("x"), options()).await.expect_err("no answer");
    assert_eq!(error.to_string(), "server: this port speaks TLS: connect with it");
    // One that asks first does not send the call.
    let error = pinging(server.address, None).call(&ECHO, &mut Note::of("x"), options()).await.expect_err("no answer");
    let reason = format!("{}: this port speaks TLS: connect with it", server.address);
    assert_eq!(error, ChannelError::Unreachable { endpoints: 1, reason });
    assert_eq!(server.notes.happened().started, 0);
}

#[tokio::test]
async fn tls_where_none_is_spoken_ends_with_a_clear_word() {
    let authority = Authority::new("ours");
    let server = serve(ServerLimits::default()).await;
    let refused = refusal(server.address, authority.trusts()).await;
    assert!(refused.contains("it speaks no TLS, or has nothing in common with this side"), "{refused}");
    assert!(server.stats.sniffed_total.load(Relaxed) > 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_and_counted() {
    let authority = Authority::new("ours");
    let limits = ServerLimits { handshake_time: Duration::from_millis(100), ..ServerLimits::default() };
    let server = serve_by(authority.server("server", &Says::default()), limits).await;
    for (cut, beginning) in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"].iter().enumerate() {
        let mut raw = Raw::connect(server.address).await;
        raw.send(beginning).await;
        assert_eq!(raw.rest().await, b"");
        assert_eq!(server.stats.limit_hits(Limit::HandshakeTime), cut as u64 + 1);
    }
    assert_eq!(server.stats.connections_total.load(Relaxed), 0, "none of them was let in");
}

/// The server's log said that the server had closed the connection.
#[tokio::test]
async fn who_leaves_a_handshake_is_said_to_have_left() {
    let authority = Authority::new("ours");
    let tls = ServerTls::new(authority.server("server", &Says::default())).expect("good files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    for resets in [false, true] {
        let mut raw = Raw::connect(listener.local_addr().expect("it is bound")).await;
        let (stream, _) = listener.accept().await.expect("a connection");
        // Half a hello.
        raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
        if resets {
            raw.io.set_zero_linger().expect("the socket takes the option");
        }
        drop(raw);
        let failed = accept(stream, &tls).await.expect_err("there is no handshake");
        assert!(failed.reason.starts_with("it left"), "{}", failed.reason);
        assert_eq!(failed.reason.contains("reset"), resets, "{}", failed.reason);
    }
}

/// Connections that said nothing, two hundred of them a second, closed the door to everybody.
#[tokio::test]
async fn who_says_nothing_makes_room_for_who_comes_also_behind_one_address() {
    let authority = Authority::new("ours");
    let server = serve_by(authority.server("server", &Says::default()), room_for_two()).await;
    let mut first = connect(server.address, &authority.trusts()).await.expect("good certificates");
    first.call("echo", 1, "x").await;
    assert_eq!(first.reply().await.0, 1);
    let mut silent = [Raw::connect(server.address).await, Raw::connect(server.address).await];
    // Who is through takes no place: only the first of these needs one of another.
    for _ in 0..3 {
        let mut raw = connect(server.address, &authority.trusts()).await.expect("there is room");
        raw.call("echo", 1, "x").await;
        assert_eq!(raw.reply().await.0, 1);
    }
    assert_eq!(end(&mut silent[0]).await, b"", "the older one made it");
    assert_eq!(server.stats.limit_hits(Limit::Handshakes), 1);
    first.call("echo", 2, "x").await;
    assert_eq!(first.reply().await.0, 2);
}

/// Says hello, or something without TLS, and no more: who has spoken keeps its place against those behind its address alone.
#[tokio::test]
async fn who_does_not_go_on_keeps_nobody_out_at_another_address() {
    let authority = Authority::new("ours");
    let connector = authority.trusts().make().expect("good files").connector();
    let name = "localhost".try_into().expect("a name");
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::clone(connector.config()), name).expect("good settings");
    client.write_tls(&mut hello).expect("a vector takes it");
    for beginning in [&hello[..], b"G"] {
        let server = serve_by(authority.server("server", &Says::default()), room_for_two()).await;
        let mut strangers = Vec::new();
        for n in 1..=2 {
            let mut raw = connect_from([127, 0, 0, 66], server.address).await;
            raw.send(beginning).await;
            // The server has seen it: it answers, or takes it for a connection without TLS.
            match beginning.len() {
                1 => until("the connection", || server.stats.connections.load(Relaxed) == n).await,
                _ => assert_eq!(raw.io.read(&mut [0]).await.expect("a hello"), 1),
            }
            strangers.push(raw);
        }
        assert_eq!(end(&mut connect_from([127, 0, 0, 66], server.address).await).await, b"");
        assert_eq!(server.stats.limit_hits(Limit::Handshakes), 1);
        connect(server.address, &authority.trusts()).await.expect("there is room");
        assert_eq!(server.stats.limit_hits(Limit::Handshakes), 2);
        end(&mut strangers[0]).await;
    }
}

/// In a handshake, and for longer than any test takes.
fn room_for_two() -> ServerLimits {
    let hour = Duration::from_secs(3_600);
    ServerLimits { handshakes: 2, handshake_time: hour, frame_time: hour, ..ServerLimits::default() }
}

async fn end(raw: &mut Raw<TcpStream>) -> Vec<u8> {
    tokio::time::timeout(Duration::from_secs(30), raw.rest()).await.expect("the server closes it")
}

async fn connect_from(address: [u8; 4], server: SocketAddr) -> Raw<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this host");
    Raw::over(socket.connect(server).await.expect("the server listens"))
}

#[tokio::test]
async fn a_drain_waits_for_no_handshake() {
    let authority = Authority::new("ours");
    let limits = ServerLimits { handshake_time: Duration::from_secs(3_600), ..ServerLimits::default() };
    let server = serve_by(authority.server("server", &Says::default()), limits).await;
    let mut silent = Raw::connect(server.address).await;
    let mut raw = connect(server.address, &authority.trusts()).await.expect("good certificates");
    raw.call("hold", 1, "x").await;
    server.notes.until(|happened| happened.started == 1).await;
    server.drain.start();
    server.notes.open("x");
    assert_eq!(raw.reply().await.0, 1);
    server.task.await.expect("no panic");
    assert_eq!(silent.rest().await, b"");
    // Said goodbye to, not cut.
    assert_eq!(raw.io.read(&mut [0; 16]).await.expect("an orderly end"), 0);
}

#[tokio::test]
async fn changed_files_are_for_new_connections_and_broken_ones_for_none() {
    let authority = Authority::new("ours");
    let first = Says { dns: &["first"], last_year: 2101, ..Says::default() };
    let second = Says { dns: &["second"], last_year: 2102, ..Says::default() };
    let by = |name: &str| ClientTlsSettings { server_name: Some(name.to_owned()), ..authority.trusts() };
    let server = serve_by(authority.server("server", &first), ServerLimits::default()).await;
    let expires = |server: &Running| server.stats.certificate_expires.load(Relaxed);
    let seconds = |year: i32| date_time_ymd(year, 1, 1).unix_timestamp().unsigned_abs();
    until("the first certificate", || expires(&server) == seconds(2101)).await;
    let mut old = connect(server.address, &by("first")).await.expect("the first certificate");
    old.call("hold", 1, "x").await;

    authority.issue("server", SERVER, &second);
    until("the second certificate", || expires(&server) == seconds(2102)).await;
    server.notes.open("x");
    assert_eq!(old.reply().await, (1, "x".to_owned()), "the old connection goes on");
    old.call("echo", 2, "y").await;
    assert_eq!(old.reply().await.0, 2);
    connect(server.address, &by("second")).await.expect("the second certificate");
    let error = connect(server.address, &by("first")).await.err().expect("the first one is gone");
    assert!(error.to_string().contains("not for first"), "{error}");

    // The key of another certificate, then no key at all.
    let unusable = |server: &Running| server.stats.certificates_unusable.load(Relaxed);
    let (_, key) = authority.issue("another", SERVER, &first);
    for (times, bytes) in [(1, fs::read(key).expect("a key")), (2, b"nonsense".to_vec())] {
        fs::write(authority.file("server.key"), bytes).expect("written");
        until("the notice", || unusable(&server) == times).await;
        connect(server.address, &by("second")).await.expect("still the second certificate");
    }
    assert_eq!(expires(&server), seconds(2102));
    // And whole again.
    authority.issue("server", SERVER, &first);
    until("the first certificate again", || expires(&server) == seconds(2101)).await;
    connect(server.address, &by("first")).await.expect("the first certificate");
}

#[tokio::test]
async fn a_client_shows_what_its_files_hold_when_it_connects() {
    let authority = Authority::new("ours");
    let settings =
        ServerTlsSettings { client_ca: Some(authority.ca()), ..authority.server("server", &Says::default()) };
    let (server, address, _) = bind(settings, ServerLimits::default()).await;
    let (_drain, watched) = Drain::new(Drain::LIMIT);
    tokio::spawn(server.serve(Arc::new(Who), watched));
    let tls = ClientTls::new(authority.shows("client", &Says { dns: &["before"], ..Says::default() }));
    let tls = tls.expect("good files");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(tls.clone().follow(move |change| tell.send(change).expect("somebody listens")));
    let ask = || async {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let mut raw = Raw::over(tls.connect(stream, "localhost").await.expect("good certificates"));
        raw.send(&text_call("echo", 1, "who am I?")).await;
        raw.reply().await.1
    };
    assert_eq!(ask().await, "before");
    authority.issue("client", CLIENT, &Says { dns: &["after"], last_year: 2103, ..Says::default() });
    let expires = SystemTime::from(date_time_ymd(2103, 1, 1));
    // The two files may be seen one by one.
    while !matches!(told.recv().await, Some(TlsChange::Used { expires: Some(at) }) if at == expires) {}
    assert_eq!(ask().await, "after");
    fs::remove_file(authority.ca()).expect("it is there");
    assert!(matches!(told.recv().await, Some(TlsChange::Kept(TlsError::Read { file, .. })) if file == authority.ca()));
    assert_eq!(ask().await, "after");
}

#[tokio::test]
async fn an_old_version_is_refused_where_it_is_not_allowed() {
    let authority = Authority::new("ours");
    let settings = ServerTlsSettings { min_version: TlsVersion::Tls13, ..authority.server("server", &Says::default()) };
    let server = serve_by(settings, ServerLimits::default()).await;
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS12])
        .expect("ring speaks it")
        .with_root_certificates(pem::roots(&authority.ca()).expect("a root"))
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.expect("the server listens");
    let name = "localhost".try_into().expect("a name");
    let error = TlsConnector::from(Arc::new(old)).connect(name, stream).await.expect_err("too old");
    assert_eq!(reason(&error), "it speaks no version of TLS that is spoken here");
    until("the count", || server.stats.handshakes_failed(HandshakeFailure::Protocol) == 1).await;
    assert_eq!(
        "1.1".parse::<TlsVersion>().expect_err("too old").to_string(),
        "version of TLS is \"1.1\", allowed is \"1.2\" or \"1.3\""
    );
}

#[test]
fn what_cannot_be_used_is_named_with_the_reason() {
    let authority = Authority::new("ours");
    let good = authority.server("server", &Says::default());
    let (_, other_key) = authority.issue("other", SERVER, &Says::default());
    let file = |name: &str, text: &str| {
        fs::write(authority.file(name), text).expect("written");
        authority.file(name)
    };
    let empty = file("empty.pem", "");
    let garbage = file("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = file("locked.key", locked);
    let missing = authority.file("missing.pem");
    let told = |settings: ServerTlsSettings| ServerTls::new(settings).expect_err("it cannot be used").to_string();
    let shown = |path: &PathBuf| path.display().to_string();
    for (settings, says) in [
        (
            ServerTlsSettings { certificate: missing.clone(), ..good.clone() },
            format!("{}: No such file or directory (os error 2)", shown(&missing)),
        ),
        (
            ServerTlsSettings { certificate: empty.clone(), ..good.clone() },
            format!("{}: holds no certificate in PEM", shown(&empty)),
        ),
        (
            ServerTlsSettings { key: good.certificate.clone(), ..good.clone() },
            format!("{}: holds no private key in PEM", shown(&good.certificate)),
        ),
        (
            ServerTlsSettings { key: locked.clone(), ..good.clone() },
            format!("{}: holds a private key with a password, which nobody could type at a restart", shown(&locked)),
        ),
        (
            ServerTlsSettings { key: other_key.clone(), ..good.clone() },
            format!("{}: is not the key of the certificate in {}", shown(&other_key), shown(&good.certificate)),
        ),
        (
            ServerTlsSettings { client_ca: Some(empty.clone()), ..good.clone() },
            format!("{}: holds no certificate in PEM", shown(&empty)),
        ),
    ] {
        assert_eq!(told(settings), says);
    }
    let told = told(ServerTlsSettings { certificate: garbage.clone(), ..good.clone() });
    assert!(told.starts_with(&format!("{}: ", shown(&garbage))), "{told}");
    let settings = ClientTlsSettings { certificate: Some((good.certificate, other_key)), ..authority.trusts() };
    assert!(ClientTls::new(settings).is_err_and(|error| error.to_string().contains("is not the key of")));
}
