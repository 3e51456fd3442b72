//! OpenAI's own packages for Python and Node, unchanged, through nginx.

use std::process::{Command, Output};
use std::time::Duration;

use e2e::{Parts, Stand, node, python, tiny_chat_model, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

fn seen(output: Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the client prints JSON")
}

fn run(mut client: Command, stand: &Stand, arguments: &[&str]) -> Value {
    let base_url = format!("http://{}/v1", stand.web_address());
    seen(client.arg(base_url).args(arguments).output().expect("the client starts"))
}

fn stand(folder: &TempDir) -> Stand {
    Stand::start(Parts { models: vec![folder.path().to_owned()], only: Vec::new(), ..Parts::default() })
}

#[test]
fn the_python_package_works_unchanged() {
    let folder = tiny_chat_model();
    let mut stand = stand(&folder);
    let seen = run(python("openai_client.py"), &stand, &["all", "tiny-llama"]);
    let errors = json!({
        "temperature": ["BadRequestError", 400, "invalid_input", "temperature", true],
        "tools": ["BadRequestError", 400, "invalid_input", "tools", true],
        "model": ["NotFoundError", 404, "model_not_found", "model", true],
        "retrieve": ["NotFoundError", 404, "model_not_found", "model", true],
        "context": ["APIStatusError", 413, "too_large", "messages", true],
        "body": ["APIStatusError", 413, "too_large", null, true],
        "stream": ["NotFoundError", 404, "model_not_found", "model", true],
    });
    let expected = json!({
        "models": ["tiny-llama"], "model": "tiny-llama",
        "finish": "length", "role": "assistant", "usage adds up": true, "tokens": 12,
        "the stream says the same": true, "streamed usage": [12, []], "streamed finish": "length", "several chunks": true,
        "stopped": ["stop", true],
        "three answers": [3, true], "the same seed": true, "the first is the lone one": true,
        "three streamed answers": true,
        "logprobs": [6, true], "greedy is likeliest": true,
        "a schema holds": [true, true],
        "completion": ["text_completion", true], "streamed completion": true, "completion logprobs": 6,
        "options": 1, "errors": errors,
    });
    assert_eq!(seen, expected);
    let limited = run(python("openai_client.py"), &stand, &["limited", "tiny-llama"]);
    assert_eq!(limited["limited"], json!(["RateLimitError", 429, "rate_limited", null, true]));
    stand.server = None;
    let gone = run(python("openai_client.py"), &stand, &["gone", "tiny-llama"]);
    for part in ["gone", "gone streamed"] {
        assert_eq!(gone[part], json!(["InternalServerError", 503, "unavailable", null, true]));
    }
}

#[test]
fn the_node_package_works_unchanged() {
    let folder = tiny_chat_model();
    let mut stand = stand(&folder);
    let seen = run(node("openai_client.mjs"), &stand, &["all", "tiny-llama"]);
    let errors = json!({
        "temperature": ["BadRequestError", 400, "invalid_input", "temperature", true],
        "model": ["NotFoundError", 404, "model_not_found", "model", true],
        "stream": ["NotFoundError", 404, "model_not_found", "model", true],
        "context": ["APIError", 413, "too_large", "messages", true],
        "body": ["APIError", 413, "too_large", null, true],
    });
    let expected = json!({
        "models": ["tiny-llama"], "model": "tiny-llama", "finish": "length", "tokens": 12,
        "the stream says the same": true, "streamed usage": 12, "the helper puts it together": true,
        "stopped": ["stop", true], "the same seed": true, "logprobs": [6, true], "a schema holds": "boolean",
        "completion": "text_completion", "errors": errors,
    });
    assert_eq!(seen, expected);
    let limited = run(node("openai_client.mjs"), &stand, &["limited", "tiny-llama"]);
    assert_eq!(limited["limited"], json!(["RateLimitError", 429, "rate_limited", null, true]));
    stand.server = None;
    let gone = run(node("openai_client.mjs"), &stand, &["gone", "tiny-llama"]);
    for part in ["gone", "gone streamed"] {
        assert_eq!(gone[part], json!(["InternalServerError", 503, "unavailable", null, true]));
    }
}

/// With the bundled model, which is slow enough to be left in the middle of an answer and makes sense enough to end an object.
#[test]
fn who_leaves_or_comes_too_late_frees_the_slot() {
    let name = "smollm2-135m-instruct";
    let stand = Stand::start(Parts { only: vec![name.into()], ..Parts::default() });
    let seen = run(python("openai_client.py"), &stand, &["object", name]);
    assert_eq!(seen["object"][0], "stop", "{seen}");
    assert!(seen["object"][1].as_object().is_some_and(|object| !object.is_empty()), "{seen}");
    let before = stand.server_metric("outboard_chat_generated_tokens_total{");
    let python_saw = run(python("openai_client.py"), &stand, &["cancel", name]);
    left(&stand, &python_saw, before);
    assert_eq!(python_saw["timeout"], true);
    let before = stand.server_metric("outboard_chat_generated_tokens_total{");
    let node_saw = run(node("openai_client.mjs"), &stand, &["cancel", name]);
    left(&stand, &node_saw, before);
    assert_eq!(node_saw["timeout"], "APIConnectionTimeoutError");
    assert_eq!(node_saw["chunks"], 3, "who aborts reads no more");
    // The package raises what comes as the last event of a stream.
    let process = stand.server.as_ref().expect("started").id().to_string();
    let cut = run(python("openai_client.py"), &stand, &["cut", name, &process]);
    assert_eq!(cut["cut"], json!(["APIError", "unavailable", "server_error"]));
}

/// Three answers of 1,500 tokens, each left early, are worked on no more.
fn left(stand: &Stand, seen: &Value, generated_before: f64) {
    assert_eq!(seen["too late"], json!(["InternalServerError", 504, "deadline_exceeded", null, true]));
    wait_until("every stream to end and every slot to be free", Duration::from_secs(20), || {
        let (streams, rows) = ("outboard_chat_streams ", "outboard_engine_running_rows");
        (stand.server_metric(streams) == 0.0 && stand.server_metric(rows) == 0.0).then_some(())
    });
    let request_id = seen["request"].as_str().expect("an id").to_owned();
    let gateway = stand.gateway.as_ref().expect("started");
    let line = wait_until("the event of the one that left", Duration::from_secs(20), || {
        gateway.log().lines().find(|line| line.contains(&request_id)).map(str::to_owned)
    });
    assert!(line.contains("499"), "{line}");
    let generated = stand.server_metric("outboard_chat_generated_tokens_total{") - generated_before;
    assert!(generated < 500.0, "three answers of 1,500 tokens were left early, and {generated} tokens generated");
}
