//! Other languages' own clients against the real server.

use std::process::{Command, Output};

use e2e::{Parts, Stand, python, repository};
use serde_json::{Value, json};

fn seen(output: Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the client prints JSON")
}

fn stand() -> Stand {
    Stand::start(Parts { web: false, ..Parts::default() })
}

fn port(stand: &Stand) -> String {
    stand.thrift().rsplit(':').next().expect("host:port").to_owned()
}

#[test]
fn thriftpy2_reaches_every_method_in_both_protocols() {
    let stand = stand();
    let shoe = repository().join("models/testdata/shoe.png");
    for protocol in ["binary", "compact"] {
        let output = python("thriftpy2_client.py")
            .args(["127.0.0.1", &port(&stand), protocol])
            .arg(&shoe)
            .output()
            .expect("python runs");
        let seen = seen(output);
        assert_eq!(seen["models"], json!(["fashion-mnist", "mnist"]), "{protocol}");
        assert_eq!(seen["labels"].as_array().map(Vec::len), Some(10));
        assert_eq!(seen["request_id"], "python-request-1");
        for result in seen["results"].as_array().expect("a list") {
            assert_eq!(result[0], "Ankle boot");
            assert_eq!(result.as_array().map(Vec::len), Some(3));
        }
        assert!(seen["score"].as_f64().is_some_and(|score| score > 0.5 && score <= 1.0), "{seen}");
        assert_eq!(seen["preview"], json!([true, true]));
        assert_eq!(seen["size"], json!([28, 28, "png"]));
        assert_eq!(seen["outputs"][0][1], json!([2, 10]));
        assert_eq!(seen["outputs"][0][2], 80);
        assert_eq!(
            seen["faults"],
            json!({
                "unknown model": [4, "model", true, true],
                "not a picture": [12, "images", true, true],
                "no picture": [1, "images", true, true],
                "17 pictures": [5, "images", true, true],
                "top_k": [1, "top_k", true, true],
                "over": [8, null, true, true],
                "tensor": [1, "image", true, true],
            }),
            "{protocol}"
        );
        assert_eq!(seen["health"], json!([1, true, true]));
        assert_eq!(seen["health of one"], 1);
        assert_eq!(seen["unknown method"], 1);
    }
}

#[test]
fn apaches_python_library_works_in_each_protocol() {
    let stand = stand();
    let generated = stand.folder().join("gen");
    std::fs::create_dir(&generated).expect("a fresh folder");
    for file in ["base", "fault", "health", "inference"] {
        let status = Command::new("thrift")
            .args(["--gen", "py", "-out"])
            .arg(&generated)
            .arg(repository().join(format!("idl/{file}.thrift")))
            .status()
            .expect("the Thrift compiler runs");
        assert!(status.success());
    }
    for kind in ["binary", "accelerated", "compact", "multiplexed"] {
        let output = python("thrift_client.py")
            .args(["127.0.0.1", &port(&stand), kind])
            .arg(&generated)
            .arg(repository().join("models/testdata/shoe.png"))
            .output()
            .expect("python runs");
        let seen = seen(output);
        assert_eq!(seen["health"], "SERVING", "{kind}");
        assert_eq!(seen["label"], "Ankle boot");
        assert_eq!(seen["labels"], 5);
        assert_eq!(seen["request_id"], "apache-python-1");
        assert_eq!(seen["models"], json!(["fashion-mnist", "mnist"]));
        assert_eq!(seen["fault"][0], "NotFound");
        assert!(seen["fault"][1].as_str().is_some_and(|message| message.contains("nope")), "{seen}");
    }
}

#[test]
fn the_streaming_example_for_python_runs_as_it_stands() {
    let models = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (repository().join("crates/generate/testdata/tiny-llama"), models.path().join("talk"));
    std::fs::create_dir_all(to.join("onnx")).expect("a folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model.onnx_data"] {
        std::fs::copy(from.join(file), to.join(file)).expect("a copy");
    }
    let settings = "task = \"chat\"\n[chat]\ntemperature = 0.0\nkv_bytes = 1048576\n";
    std::fs::write(to.join("model.toml"), settings).expect("a file");
    let parts = Parts { models: vec![models.path().to_owned()], only: Vec::new(), web: false, ..Parts::default() };
    let stand = Stand::start(parts);
    let generated = stand.folder().join("gen");
    std::fs::create_dir(&generated).expect("a fresh folder");
    let idl = repository().join("idl/chat.thrift");
    let made = Command::new("thrift").args(["-r", "--gen", "py", "-out"]).arg(&generated).arg(idl).status();
    assert!(made.expect("the Thrift compiler runs").success());
    let example = |model: &str| {
        let mut command = Command::new(repository().join(".venv/bin/python"));
        command.arg(repository().join("docs/clients/chat.py")).args([&stand.thrift(), model, "Hello"]);
        command.env("PYTHONPATH", &generated).env("PYTHONIOENCODING", "utf-8").output().expect("python runs")
    };
    let output = example("talk");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("[LENGTH, ") && told.contains(" tokens, "), "{told}");
    // A random model says nothing that makes sense, but it says it until its context of 256 tokens is full.
    assert!(output.stdout.len() > 100, "{}", String::from_utf8_lossy(&output.stdout));
    let output = example("nobody");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("`nobody`") && told.contains("(request "), "{told}");
}
