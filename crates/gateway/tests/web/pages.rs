//! Pages, and what describes the gateway and its models.

use std::io::{Read as _, Write as _};

use crate::client::{ask, connect, form, get, read};
use crate::gateway::both;

#[test]
fn head_is_answered_like_get_without_the_body() {
    let (_server, gateway) = both(&[]);
    for path in ["/upload", "/health/live", "/v1/models", "/docs"] {
        let (status, body) = head(&gateway.address, path);
        assert_eq!((status, get(&gateway.address, path).status), (200, 200), "{path}");
        assert!(body.is_empty(), "{path}: a body of {} bytes", body.len());
    }
}

/// Status and body of an answer to HEAD, whose Content-Length says how long the body would be.
fn head(address: &str, path: &str) -> (u16, Vec<u8>) {
    let mut stream = connect(address);
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("is sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("is answered");
    let end = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let status = std::str::from_utf8(&all[9..12]).ok().and_then(|text| text.parse().ok());
    (status.expect("a status"), all.split_off(end))
}

#[test]
fn the_documentation_names_the_address_by_which_it_was_asked_for() {
    let (_server, gateway) = both(&[]);
    let page = |host: &str| {
        let mut stream = connect(&gateway.address);
        let request = format!("GET /docs HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("is sent");
        read(&mut stream).text().to_owned()
    };
    assert!(page("pictures.example.org:8443").contains("OUTBOARD=http://pictures.example.org:8443"));
    let odd = page("x$(reboot)");
    assert!(!odd.contains("reboot") && odd.contains("OUTBOARD=http://127.0.0.1:8080"));
}

#[test]
fn pages_work_without_scripts_and_let_no_markup_through() {
    let (server, gateway) = both(&[]);
    let home = get(&gateway.address, "/");
    assert_eq!((home.status, home.header("location")), (302, Some("/upload")));
    let page = get(&gateway.address, "/upload");
    let policy = page.header("content-security-policy").expect("pages have one");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"), ("cache-control", "no-store")]
    {
        assert_eq!(page.header(name), Some(value));
    }
    let text = page.text();
    for there in
        ["value=\"good\"", "value=\"held\"", "What &lt;good&gt; knows &amp; does", "enctype=\"multipart/form-data\""]
    {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    for absent in ["warming", "numbers", "What <good>", "http://", "https://", "<style", " style="] {
        assert!(!text.contains(absent), "{absent} is in {text}");
    }
    // Every file that a page names is there, may be kept for ever, and comes from here.
    assert_eq!(text.matches("\"/assets/").count(), 4, "{text}");
    for part in text.split("\"/assets/").skip(1) {
        let path = format!("/assets/{}", part.split('"').next().unwrap_or_default());
        let file = get(&gateway.address, &path);
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("cache-control").is_some_and(|kept| kept.contains("immutable")), "{path}");
    }
    assert_eq!(get(&gateway.address, "/assets/00000000/nothing.css").status, 404);
    let icon = get(&gateway.address, "/favicon.ico");
    assert_eq!((icon.status, icon.header("cache-control")), (200, Some("public, max-age=86400")), "it has no digest");

    let (kind, body) = form(&[("model", None, b"good"), ("image", Some("<b>.png"), b"hello")]);
    let result = ask(&gateway.address, "POST", "/upload", &[("content-type", &kind)], &body);
    assert_eq!(result.status, 200, "{}", result.text());
    assert_eq!(server.arrived().last().map(|last| last.images.clone()), Some(vec![b"hello".to_vec()]));
    let text = result.text();
    for there in [
        "label &lt;0&gt;",
        "data:image/jpeg;base64,YSBzbWFsbCBqcGVn",
        result.header("x-request-id").expect("an id"),
        "28 × 27",
    ] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    assert_eq!(text.matches("data-label").count(), 5);
    assert!(!text.contains("label <0>"));
    assert!(text.contains("alt=\"The picture: label &lt;0&gt;\""), "{text}");

    let picture: (&str, Option<&str>, &[u8]) = ("image", Some("x"), b"hello");
    let (kind, body) = form(&[("model", None, b"good"), picture, picture]);
    let text = ask(&gateway.address, "POST", "/upload", &[("content-type", &kind)], &body).text();
    for number in [1, 2] {
        assert!(text.contains(&format!("alt=\"Picture {number} of 2: label &lt;0&gt;\"")), "{text}");
    }
}

#[test]
fn the_form_names_the_limits_that_hold() {
    for (settings, says) in [
        (&[][..], "Up to 16 at once, together at most 15 MiB."),
        (
            &["limits.picture=2MiB", "limits.pictures_per_call=8"],
            "Up to 8 at once, each at most 2 MiB, together at most 15 MiB.",
        ),
    ] {
        let (_server, gateway) = both(settings);
        let text = get(&gateway.address, "/upload").text();
        assert!(text.contains(says), "{text}");
    }
    let (server, gateway) = both(&[]);
    let send = |bytes: usize| {
        let picture = vec![7; bytes / 2];
        let (kind, body) =
            form(&[("model", None, b"good"), ("image", Some("a"), &picture), ("image", Some("b"), &picture)]);
        ask(&gateway.address, "POST", "/v1/classify", &[("content-type", &kind)], &body).status
    };
    assert_eq!((send(15 << 20), server.arrived().len()), (200, 1));
    assert_eq!((send(17 << 20), server.arrived().len()), (413, 1));
}

#[test]
fn what_is_served_is_listed_and_described() {
    let (_server, gateway) = both(&[]);
    let list = get(&gateway.address, "/v1/models").json();
    assert_eq!(list["object"], "list");
    let models: Vec<_> = list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|model| (&model["id"], &model["task"], &model["state"]))
        .collect();
    assert_eq!(models[0], (&"good".into(), &"classify".into(), &"ready".into()));
    assert_eq!(models[2], (&"warming".into(), &"classify".into(), &"warming".into()));
    assert_eq!(models[3], (&"numbers".into(), &"tensor".into(), &"ready".into()));
    let good = get(&gateway.address, "/v1/models/good").json();
    assert_eq!((&good["id"], &good["created"]), (&"good".into(), &1_700_000_000.into()));
    assert_eq!(list["data"][1]["created"], 0, "an older server does not tell");
    assert_eq!(get(&gateway.address, "/v1/models/nope").code(), "model_not_found");
    let api = get(&gateway.address, "/openapi.json").json();
    let docs = get(&gateway.address, "/docs");
    assert_eq!(docs.status, 200);
    for path in api["paths"].as_object().expect("paths").keys() {
        assert!(docs.text().contains(&format!("<code>{}</code>", path.replace('/', "&#x2f;"))), "{path}");
    }
    let page = get(&gateway.admin, "/metrics").text();
    for line in [
        "outboard_gateway_answers_total{route=\"models\",status=\"2xx\"} 2",
        "outboard_gateway_answers_total{route=\"models\",status=\"4xx\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}
