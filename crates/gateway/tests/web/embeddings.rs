//! `/v1/embeddings` before a server whose vectors are the lengths of the texts.

use serde_json::{Value, json};

use crate::client::{Answer, ask, get, wait_until};
use crate::gateway::{Gateway, both};

const JSON: (&str, &str) = ("content-type", "application/json");
const EMBEDDINGS: &str = "/v1/embeddings";

fn post(gateway: &Gateway, body: &Value) -> Answer {
    ask(&gateway.address, "POST", EMBEDDINGS, &[JSON], body.to_string().as_bytes())
}

#[test]
fn vectors_have_openais_form() {
    let (_server, gateway) = both(&[]);
    let answer = post(&gateway, &json!({"model": "good", "input": ["abc", "a"], "user": "ann"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    let vector = |index: usize, first: f64| json!({"object": "embedding", "index": index, "embedding": [first, 0.25]});
    assert_eq!(
        answer.json(),
        json!({"object": "list", "data": [vector(0, 3.0), vector(1, 1.0)], "model": "good",
               "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    );
    let tokens = post(&gateway, &json!({"model": "good", "input": [7, 8, 9], "dimensions": 1}));
    assert_eq!(tokens.json()["data"][0]["embedding"], json!([3.0]));
    // 2.0 and 0.25, little-endian.
    let base64 = post(&gateway, &json!({"model": "good", "input": "ab", "encoding_format": "base64"}));
    assert_eq!(base64.json()["data"][0]["embedding"], "AAAAQAAAgD4=");
    let event = gateway.event(answer.header("x-request-id").expect("every answer has one"));
    assert_eq!(
        (&event["kind"], &event["tokens_in"], &event["model"]),
        (&json!("embeddings"), &json!(4), &json!("good"))
    );
}

/// All users of a gateway shared one caller's room at the server.
#[test]
fn the_servers_can_tell_whose_texts_they_are() {
    let (server, gateway) = both(&[]);
    let body = json!({"model": "good", "input": "abc"}).to_string();
    for caller in ["192.0.2.7", "192.0.2.8"] {
        let headers = [JSON, ("x-real-ip", caller)];
        assert_eq!(ask(&gateway.address, "POST", EMBEDDINGS, &headers, body.as_bytes()).status, 200);
    }
    assert_eq!(server.embedders(), ["gateway for anonymous@192.0.2.7", "gateway for anonymous@192.0.2.8"]);
}

#[test]
fn many_numbers_are_whole_and_in_order() {
    let (_server, gateway) = both(&[]);
    let texts: Vec<String> = (0..300).map(|number| "x".repeat(number % 7 + 1)).collect();
    let answer = post(&gateway, &json!({"model": "good", "input": texts, "dimensions": 100}));
    let body = answer.json();
    for (number, one) in body["data"].as_array().expect("a list").iter().enumerate() {
        assert_eq!((&one["index"], &one["embedding"][0]), (&json!(number), &json!((number % 7 + 1) as f64)));
        assert_eq!(one["embedding"].as_array().map(Vec::len), Some(100));
    }
    assert_eq!(body["data"].as_array().map(Vec::len), Some(300));
}

#[test]
fn errors_name_the_clients_own_fields() {
    let (_server, gateway) = both(&[]);
    for (body, status, code, param) in [
        (json!({"model": "good"}), 400, "invalid_input", json!("input")),
        (json!({"model": "good", "input": []}), 400, "invalid_input", json!("input")),
        (
            json!({"model": "good", "input": "a", "encoding_format": "hex"}),
            400,
            "invalid_input",
            json!("encoding_format"),
        ),
        (json!({"model": "good", "input": "a", "input_type": "query"}), 400, "invalid_input", json!("input_type")),
        (json!({"input": "a"}), 400, "invalid_input", json!("model")),
        (json!({"model": "TooLarge", "input": "a"}), 413, "too_large", json!("input")),
        (json!({"model": "Overloaded", "input": "a"}), 503, "overloaded", json!("input")),
    ] {
        let answer = post(&gateway, &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &param), "{body}");
    }
    let get = ask(&gateway.address, "GET", EMBEDDINGS, &[], b"");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let form = ask(&gateway.address, "POST", EMBEDDINGS, &[("content-type", "text/plain")], b"{}");
    assert_eq!(form.status, 415);
}

#[test]
fn texts_keep_their_share_of_the_bodies_until_they_are_answered() {
    let (server, gateway) = both(&[]);
    let in_memory = || {
        let page = get(&gateway.admin, "/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix("outboard_gateway_body_bytes "));
        line.expect("the metric is there").parse::<usize>().expect("a number")
    };
    let body = json!({"model": "held", "input": "x".repeat(10_000)});
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| post(&gateway, &body));
        wait_until("the call to begin", || (server.held() == 1).then_some(()));
        assert!(in_memory() >= 10_000, "{} bytes", in_memory());
        server.release();
        assert_eq!(asked.join().expect("it is answered").status, 200);
    });
    wait_until("all of it to be given back", || (in_memory() == 0).then_some(()));
}
