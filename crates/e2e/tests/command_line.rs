//! The command line talks with the real server's language models.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use e2e::{Parts, Stand, target_folder, tiny_chat_model, wait_until};
use serde_json::{Value, json};

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_streamed_answer_is_the_whole_one_and_leaves_nothing_behind() {
    let folder = tiny_chat_model();
    let models = vec![folder.path().to_owned()];
    let stand = Stand::start(Parts { models, only: Vec::new(), ..Parts::default() });
    let server = stand.thrift();
    let base = ["call", "chat", "--server", &server, "--temperature", "0", "--max-tokens", "40"];
    let whole: Value =
        serde_json::from_str(&text(stand.outboard(&[&base[..], &["--json", "hello"]].concat()))).expect("JSON");
    assert_eq!(whole["model"], "tiny-llama");
    assert!(whole["usage"]["completion_tokens"].as_u64().is_some_and(|count| (1..=40).contains(&count)), "{whole}");
    let streamed = text(stand.outboard(&[&base[..], &["hello"]].concat()));
    let first = whole["text"].as_str().expect("a text");
    assert_eq!(streamed.trim_end_matches('\n'), first.trim_end_matches('\n'));
    let mut talk = Command::new(target_folder().join("outboard"))
        .args(base)
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("outboard starts");
    talk.stdin.take().expect("piped").write_all(b"hello\nand again\n").expect("is read");
    let said = text(talk.wait_with_output().expect("it ends"));
    let rest = said.strip_prefix(first).unwrap_or_else(|| panic!("{said:?} begins otherwise than {first:?}"));
    // The second turn knows the first.
    let again = json!({
        "model": "tiny-llama", "temperature": 0, "max_tokens": 40,
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": first},
            {"role": "user", "content": "and again"},
        ],
    });
    let headers = [("content-type", "application/json")];
    let answer = stand.http().post("/v1/chat/completions", &headers, again.to_string().as_bytes()).json();
    let second = answer["choices"][0]["message"]["content"].as_str().expect("a text");
    assert!(!second.trim().is_empty(), "{answer}");
    assert_eq!(rest.trim_matches('\n'), second.trim_matches('\n'));
    wait_until("every stream to end", Duration::from_secs(60), || {
        (stand.server_metric("outboard_chat_streams ") == 0.0).then_some(())
    });
}
