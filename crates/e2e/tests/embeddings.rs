//! Texts to vectors by the bundled model: OpenAI's own package through nginx, and a Thrift client of another language.

use std::process::Command;

use e2e::{Parts, Stand, node, python};
use serde_json::{Value, json};

const MODEL: &str = "all-minilm-l6-v2";

fn run(mut client: Command, arguments: &[&str]) -> Value {
    let output = client.args(arguments).arg(MODEL).output().expect("the client starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the client prints JSON")
}

#[test]
fn clients_of_others_get_vectors_of_texts() {
    let stand = Stand::start(Parts { only: vec![MODEL.into()], ..Parts::default() });
    let base_url = format!("http://{}/v1", stand.web_address());
    let seen = run(python("openai_embeddings.py"), &[&base_url]);
    let errors = json!({
        "model": ["NotFoundError", 404, "model_not_found", "model"],
        "empty": ["BadRequestError", 400, "invalid_input", "input"],
        "no texts": ["BadRequestError", 400, "invalid_input", "input"],
        "long": ["APIStatusError", 413, "too_large", "input"],
        "dimensions": ["BadRequestError", 400, "invalid_input", "dimensions"],
    });
    let expected = json!({
        "object": ["list", "embedding", MODEL], "places": [0, 1, 2], "numbers": [384, 384, 384], "usage": [true, true],
        "length 1": true, "both formats say the same": true, "alone as together": true, "alike is nearer": true,
        "cut": [16, true], "many": true, "errors": errors, "cut to fit": 256,
    });
    assert_eq!(seen, expected);
    let seen = run(node("openai_client.mjs"), &[&base_url, "embed"]);
    let errors = json!({
        "model": ["NotFoundError", 404, "model_not_found", "model", true],
        "empty": ["BadRequestError", 400, "invalid_input", "input", true],
        "long": ["APIError", 413, "too_large", "input", true],
    });
    let expected = json!({
        "object": ["list", "embedding", MODEL], "places": [0, 1, 2], "numbers": [384, 384, 384], "length 1": true,
        "both formats say the same": true, "alike is nearer": true, "cut": 16, "errors": errors,
    });
    assert_eq!(seen, expected);
    let seen = run(python("thriftpy2_embed.py"), &[&stand.thrift()]);
    assert_eq!(seen, json!({"dimensions": 384, "tokens": [4, 5], "length 1": true, "texts in the run": true}));
}
