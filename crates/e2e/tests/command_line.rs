//! The command line talks with the real server's language models.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use e2e::{Parts, Stand, target_folder, tiny_chat_model, wait_until};
use serde_json::Value;

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_streamed_answer_is_the_whole_one_and_leaves_nothing_behind() {
    let folder = tiny_chat_model();
    let models = vec![folder.path().to_owned()];
    let stand = Stand::start(Parts { models, only: Vec::new(), web: false, ..Parts::default() });
    let server = stand.thrift();
    let base = ["call", "chat", "--server", &server, "--temperature", "0", "--max-tokens", "40"];
    let whole: Value =
        serde_json::from_str(&text(stand.outboard(&[&base[..], &["--json", "hello"]].concat()))).expect("JSON");
    assert_eq!(whole["model"], "tiny-llama");
    assert!(whole["usage"]["completion_tokens"].as_u64().is_some_and(|count| (1..=40).contains(&count)), "{whole}");
    let streamed = text(stand.outboard(&[&base[..], &["hello"]].concat()));
    assert_eq!(Some(streamed.trim_end_matches('\n')), whole["text"].as_str().map(|text| text.trim_end_matches('\n')));
    let mut talk = Command::new(target_folder().join("outboard"))
        .args(base)
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("outboard starts");
    talk.stdin.take().expect("piped").write_all(b"hello\nand again\n").expect("is read");
    let said = text(talk.wait_with_output().expect("it ends"));
    assert!(said.starts_with(streamed.trim_end_matches('\n')), "{said:?} begins otherwise than {streamed:?}");
    assert!(said.len() > streamed.len(), "there is a second turn: {said:?}");
    wait_until("every stream to end", Duration::from_secs(60), || {
        (stand.server_metric("outboard_chat_streams ") == 0.0).then_some(())
    });
}
