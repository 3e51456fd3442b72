//! The key that a gateway shows to servers that ask for one.

use fault::Kind;
use keys::Secret;

use crate::client::{classify, get, wait_until};
use crate::gateway::Gateway;
use crate::server::FakeServer;

fn new() -> String {
    Secret::generate().expect("random numbers").expose().to_owned()
}

/// The key of the call that came last.
fn shown(server: &FakeServer) -> Option<String> {
    server.arrived().pop().expect("a call came").key
}

#[test]
fn every_call_carries_the_key_of_the_settings_and_nothing_tells_it() {
    let (server, key) = (FakeServer::start(), new());
    let address = server.address.to_string();
    let gateway = Gateway::start(&address, &[&format!("server_key={key}")]);
    assert_eq!(classify(&gateway.address, "good", b"x").status, 200);
    assert_eq!(shown(&server), Some(key.clone()));
    assert!(!gateway.log().contains(&key), "it is in the log");
    let settings = ["--print-config", "--set", &format!("server_key={key}")];
    let printed = Gateway::command().args(settings).output().expect("it runs").stdout;
    let printed = String::from_utf8(printed).expect("UTF-8");
    assert!(printed.contains("server_key = \"(set)\"") && !printed.contains(&key), "{printed}");

    let open = Gateway::start(&address, &[]);
    assert_eq!(classify(&open.address, "good", b"x").status, 200);
    assert_eq!(shown(&server), None);
}

#[test]
fn a_key_in_a_file_is_followed() {
    let (server, folder) = (FakeServer::start(), tempfile::tempdir().expect("a folder"));
    let (first, second, file) = (new(), new(), folder.path().join("key"));
    std::fs::write(&file, format!("{first}\n")).expect("written");
    let gateway = Gateway::start(&server.address.to_string(), &[&format!("server_key_file={}", file.display())]);
    let shows = |key: &str| {
        assert_eq!(classify(&gateway.address, "good", b"x").status, 200);
        shown(&server).as_deref() == Some(key)
    };
    assert!(shows(&first));
    std::fs::write(&file, "no key at all").expect("written");
    wait_until("the mistake", || gateway.log().contains("key for the servers cannot be used").then_some(()));
    assert!(shows(&first));
    std::fs::write(&file, &second).expect("written");
    wait_until("the new key", || shows(&second).then_some(()));
}

#[test]
fn what_cannot_be_a_key_ends_the_start() {
    for (settings, says) in [
        (&["server_key=ob_short"][..], "`server_key`: this is no key of Outboard"),
        (&["server_key_file=/no/such/key"], "`server_key_file`: /no/such/key"),
        (&["server_key=a", "server_key_file=b"], "allowed is one of them"),
    ] {
        let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let refused = Gateway::refused(&arguments);
        assert!(refused.contains(says), "{refused}");
    }
}

/// What a server says to the gateway and not to those who ask it.
pub(crate) fn about_the_gateway(kind: Kind) -> bool {
    matches!(kind, Kind::Unauthenticated | Kind::Forbidden)
}

/// Whoever asks the gateway has done nothing wrong, and has no key to mend it with.
#[test]
fn a_gateway_that_is_not_let_in_is_unavailable_to_its_own_callers() {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), &[]);
    for kind in Kind::ALL.into_iter().filter(|kind| about_the_gateway(*kind)) {
        let answer = classify(&gateway.address, kind.row().name, b"x");
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{}", answer.text());
        let message = answer.error()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("`server_key`") && message.contains("as was asked for"), "{message}");
    }
    assert_eq!(get(&gateway.address, "/health/live").status, 200);
}
