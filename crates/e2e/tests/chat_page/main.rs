//! The chat page in a real browser, through the real nginx and gateway.

mod talker;

use std::ffi::OsStr;
use std::time::Duration;

use e2e::{Parts, Stand, browse, target_folder, tiny_chat_model, wait_until};
use serde_json::{Value, json};

use crate::talker::TalkServer;

/// What the browser saw, with the text at a place of it.
struct Seen(Value);

impl Seen {
    fn text(&self, place: &str) -> &str {
        self.0.pointer(place).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {place}: {}", self.0))
    }

    fn is(&self, place: &str, expected: Value) {
        assert_eq!(self.0.pointer(place), Some(&expected), "{place}");
    }

    fn has(&self, place: &str, all: &[&str]) {
        let text = self.text(place);
        for part in all {
            assert!(text.contains(part), "{place} is {text:?}, expected {part:?} in it");
        }
    }
}

#[test]
fn a_person_talks_with_a_model() {
    let server = TalkServer::start();
    let stand = Stand::start(Parts { instead: Some(server.address), ..Parts::default() });
    let screenshots = target_folder().join("screenshots");
    let seen = Seen(browse("chat.mjs", [OsStr::new(stand.http().base()), screenshots.as_os_str()]));
    seen.is("/models", json!(["talker", "other"]));

    an_answer_appears_while_it_is_made(&seen);
    // Every answer that was stopped with a key, a button or a reload is stopped at the server, too.
    wait_until("the server to have no answer left", Duration::from_secs(30), || (server.unended() == 0).then_some(()));
    conversations_are_kept_here(&seen);
    markdown_is_shown_and_never_run(&seen);
    what_went_wrong_is_told(&seen);
    no_mouse_no_storage_no_script_no_room(&seen);
}

/// The same page before a model that computes what it says.
#[test]
fn a_person_talks_with_a_model_of_the_real_server() {
    let folder = tiny_chat_model();
    let parts = Parts { models: vec![folder.path().to_owned()], only: Vec::new(), ..Parts::default() };
    let stand = Stand::start(parts);
    let seen = Seen(browse("chat_real.mjs", [stand.http().base()]));
    let said = seen.text("/said");
    assert!(said.len() > 20, "{said:?}");
    seen.has("/facts", &["ended at the most tokens", "first token ", "40 tokens", "tiny-llama"]);
    // At a temperature of 0 the model says the same again, streamed or whole.
    seen.is("/again", json!(said));
    seen.is("/plain", json!(said.trim()));
    seen.has("/plainFacts", &["ended at the most tokens", "40 tokens", "tiny-llama"]);
    seen.has("/tooLong", &["256", "longer than the model can read"]);
}

/// It is announced once, and can be stopped, made anew and asked for otherwise.
fn an_answer_appears_while_it_is_made(seen: &Seen) {
    seen.is("/early", json!("First half"));
    seen.is("/stopShown", json!(true));
    seen.is("/liveWhileAnswering", json!("Answering"));
    seen.is("/whole", json!("First half second half."));
    seen.is("/liveAtEnd", json!("Answer: First half second half."));
    seen.has("/facts", &["first token ", " tokens/s", "2 tokens", "talker"]);
    seen.is("/stopped", json!("First half"));
    seen.has("/stoppedFacts", &["stopped"]);
    seen.is("/retried", json!(["hold", "First half second half.", "hold", "First half second half."]));
    let history = "user: history; assistant: user: history; user: history";
    seen.is("/edited", json!(["history", "user: history", "history", history]));
    seen.is("/editCancelled", json!(4));
    seen.is("/editedBeside", json!(true));
    seen.is("/afterEditBeside", json!(["history", "user: history"]));
    seen.is("/reloaded", json!(["history", "user: history", "history", history]));
    seen.is("/reloadedTitle", json!("history"));
    seen.is("/cutByReload", json!("First half"));
    for (place, focus) in [
        ("/focusAtStart", "message"),
        ("/focusWhileAnswering", "message"),
        ("/focusAtEnd", "message"),
        ("/focusAfterStop", "message"),
        ("/focusAfterCancel", "edit"),
        ("/focusAfterEscape", "message"),
    ] {
        seen.is(place, json!(focus));
    }
}

fn conversations_are_kept_here(seen: &Seen) {
    seen.is("/settings", json!("system: Be brief.; user: history"));
    seen.is("/asked", json!({"model": "talker", "temperature": 0.5, "max_tokens": 40, "seed": 7}));
    seen.is("/talks", json!(["show The second conversation", "history"]));
    seen.is("/opened", json!("history"));
    seen.is("/renamed", json!("A better name"));
    seen.is("/afterDelete", json!(["show The second conversation"]));
    seen.is("/bothTabs", json!(["show From the other tab", "show The second conversation"]));
    // About five million characters fit: the oldest of twenty with 400,000 each made room.
    seen.is("/full/first", json!("show word"));
    seen.is("/full/oldest", json!(true));
    assert!(seen.0["full"]["kept"].as_u64() > Some(2), "{}", seen.0["full"]);
}

fn markdown_is_shown_and_never_run(seen: &Seen) {
    let tags: Vec<&str> = seen.0["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for tag in ["h3", "strong", "em", "code", "a", "ol", "ul", "li", "blockquote", "pre", "table", "th", "td", "del"] {
        assert!(tags.contains(&tag), "no <{tag}>: {tags:?}");
    }
    seen.is("/nested", json!(["pasta", "salt"]));
    seen.is("/cells", json!(["pastaor rice", "200", "salt|sea", "5"]));
    let code = "def cook(minutes):\n    return '<b>done</b>' if minutes > 9 else None  # and a line that is much too long \
                for a phone";
    seen.is("/code", json!(code));
    seen.is("/copiedCode", json!(code));
    seen.is("/copied", json!(true));
    let link = |address: &str| json!([address, "noopener noreferrer nofollow", "_blank"]);
    seen.is("/links", json!([link("https://example.com/a_b?c=d"), link("https://example.com/more")]));
    seen.is("/attack/hit", Value::Null);
    seen.is("/attack/handlers", json!([]));
    seen.is("/attack/schemes", json!(["https:"]));
    seen.is("/attack/shown", json!(true));
    let tags = seen.0["attack"]["tags"].to_string();
    for tag in ["script", "img", "iframe", "svg", "style", "math"] {
        assert!(!tags.contains(&format!("\"{tag}\"")), "<{tag}> was made: {tags}");
    }
    seen.is("/hard", json!(2));
}

fn what_went_wrong_is_told(seen: &Seen) {
    for (kind, says) in [
        ("Overloaded", ["As was asked for.", "Try again in 2 s", "Request "]),
        ("Unavailable", ["As was asked for.", "cannot be reached", "is kept"]),
        ("TooLarge", ["As was asked for.", "longer than the model can read", "edit an earlier message"]),
        ("DeadlineExceeded", ["As was asked for.", "too long", "smaller number of tokens"]),
        ("Internal", ["As was asked for.", "tell the operator", "Request "]),
        ("NotFound", ["talker", "Choose another model", "Request "]),
        ("empty", ["answered with nothing", "Ask again", ""]),
        ("break", ["The server ends.", "cannot be reached", "is kept"]),
    ] {
        seen.has(&format!("/errors/{kind}"), &says);
    }
    seen.is("/askAgain", json!("Ask again"));
    seen.has("/offline", &["cannot be reached", "Check the connection"]);
    seen.is("/afterOffline", json!(0));
    seen.is("/failedRetry", json!(["history", "user: history"]));
}

fn no_mouse_no_storage_no_script_no_room(seen: &Seen) {
    seen.is("/twoLines", json!("show one\ntwo"));
    seen.is("/escaped", json!("First half"));
    let stops = seen.0["stops"].to_string();
    for stop in ["new", "open", "rename", "delete", "copy", "edit", "retry", "message", "model", "submit", "summary"] {
        assert!(stops.contains(&format!("\"{stop}\"")), "{stop} is not reached by Tab: {stops}");
    }
    seen.is("/private/said", json!(["history", "user: history"]));
    seen.has("/private/kept", &["gone when the page is closed"]);

    seen.is("/plainHidden", json!(false));
    let second = "show <b>bold</b>\nand \"more\"";
    let shown = "<b>bold</b>\nand \"more\"";
    let history = format!("user: history; assistant: user: history; user: {second}; assistant: {shown}; user: history");
    seen.is("/plain", json!(["history", "user: history", second, shown, "history", history]));
    assert!(seen.0["plainWidth"].as_f64() > Some(600.0), "the form is {} px wide", seen.0["plainWidth"]);
    seen.has("/plainError/alert", &["as was asked for", "Many requests are waiting"]);
    seen.is("/plainError/draft", json!("Overloaded"));
    seen.is("/plainError/turns", json!(6));

    let early = json!({"said": ["history", "user: history"], "kept": 1, "hash": true, "title": "history",
                       "reloaded": ["history", "user: history"]});
    seen.is("/sentEarly", early);
    seen.has("/sentEarlyProblem", &["as was asked for", "Many requests are waiting"]);
    seen.is("/overflow360", json!([0, 0, 0]));
    seen.is("/overflow390", json!([0, 0, 0]));
    seen.is("/way", json!("/upload"));
}
