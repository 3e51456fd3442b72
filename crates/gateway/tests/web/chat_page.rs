//! The chat page as it is without JavaScript; with it, it is tried in a browser (crates/e2e).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::client::{Answer, ask, get};
use crate::gateway::{Gateway, both};

fn send(gateway: &Gateway, form: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    ask(&gateway.address, "POST", "/chat", &headers, form.as_bytes())
}

#[test]
fn the_form_carries_the_conversation_and_lets_no_markup_through() {
    let (server, gateway) = both(&[]);
    let form = "model=words&user=%3Cb%3Eone%3C%2Fb%3E%0D%0Atwo&assistant=three&message=%22four%22&system=be+brief\
                &temperature=0.5&top_p=&max_tokens=3&seed=7";
    let page = send(&gateway, form);
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    let request = server.talker.requests().pop().expect("it has arrived");
    let messages: Vec<(String, String)> = request
        .messages
        .into_iter()
        .flatten()
        .map(|one| (one.role.unwrap_or_default(), one.content.unwrap_or_default()))
        .collect();
    let expected = [("system", "be brief"), ("user", "<b>one</b>\ntwo"), ("assistant", "three"), ("user", "\"four\"")];
    assert_eq!(messages, expected.map(|(role, text)| (role.to_owned(), text.to_owned())));
    let sampling = request.sampling.expect("sampling");
    assert_eq!((sampling.temperature, sampling.top_p, sampling.seed), (Some(0.5.into()), None, Some(7)));
    assert_eq!(request.max_tokens, Some(3));
    let text = page.text();
    for there in [
        "<div class=\"said\" dir=\"auto\" data-said>one two thr\u{e9}</div>",
        "<input type=\"hidden\" name=\"assistant\" value=\"one two thr\u{e9}\">",
        "<input type=\"hidden\" name=\"user\" value=\"&lt;b&gt;one&lt;&#x2f;b&gt;\ntwo\">",
        "value=\"0.5\"",
        "ended at the most tokens · first token 3 ms",
    ] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    assert!(!text.contains("<b>one"), "{text}");
    let event = gateway.event(page.header("x-request-id").expect("an id"));
    assert_eq!((&event["kind"], &event["model"], &event["tokens_in"]), (&"chat".into(), &"words".into(), &11.into()));
}

#[test]
fn what_went_wrong_stands_above_the_form_which_keeps_what_was_written() {
    let (server, gateway) = both(&[]);
    let talk = "user=hello&assistant=hi&message=and+now%3F";
    for (form, status, says) in [
        (format!("model=nope&{talk}"), 404, "no model `nope`"),
        (format!("model=TooLarge&{talk}"), 413, "Write a shorter message, or begin a new chat."),
        (format!("model=Internal&{talk}"), 500, "as was asked for"),
        (format!("model=words&seed=often&{talk}"), 400, "seed is &quot;often&quot;, allowed is a number"),
        (format!("{talk}&model="), 400, "no model is chosen"),
    ] {
        let page = send(&gateway, &form);
        let text = page.text();
        assert_eq!(page.status, status, "{text}");
        for there in [says, "and now?</textarea>", "name=\"assistant\" value=\"hi\"", "role=\"alert\""] {
            assert!(text.contains(there), "{there} is not in {text}");
        }
    }
    server.talker.full.store(true, Ordering::SeqCst);
    let page = send(&gateway, &format!("model=words&{talk}"));
    assert_eq!((page.status, page.header("retry-after").is_some()), (503, true), "{}", page.text());
    assert!(page.text().contains("64 prompts are waiting"), "{}", page.text());
}

#[test]
fn a_form_has_limits() {
    let (server, gateway) = both(&[]);
    let turns = "user=x&".repeat(201);
    for (form, status, says) in [
        (format!("model=words&{turns}message=x"), 413, "the limit is 200"),
        (format!("model=words&message={}", "x".repeat(1 << 20)), 413, "the limit is 1048576 bytes"),
    ] {
        let page = send(&gateway, &form);
        assert_eq!(page.status, status, "{}", page.text());
        assert!(page.text().contains(says), "{}", page.text());
    }
    let json = ask(&gateway.address, "POST", "/chat", &[("content-type", "application/json")], b"{}");
    assert_eq!(json.status, 415, "{}", json.text());
    assert!(server.talker.requests().is_empty());
}

#[test]
fn a_page_of_another_site_cannot_send_a_form() {
    let (server, gateway) = both(&[]);
    let form = "application/x-www-form-urlencoded";
    let (multipart, picture) = crate::client::form(&[("image", Some("a.png"), b"x"), ("model", None, b"mnist")]);
    for foreign in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        let chat = [("content-type", form), foreign];
        let chat = ask(&gateway.address, "POST", "/chat", &chat, b"model=words&assistant=forged&message=x");
        let upload = [("content-type", multipart.as_str()), foreign];
        let upload = ask(&gateway.address, "POST", "/upload", &upload, &picture);
        for page in [chat, upload] {
            assert_eq!(page.status, 403, "{}", page.text());
            assert!(
                page.text().contains("sent from another site") && !page.text().contains("forged"),
                "{}",
                page.text()
            );
        }
    }
    assert!(server.talker.requests().is_empty());
    // The page's own; `test` is the host of every request here.
    let own = [("content-type", form), ("origin", "http://test")];
    assert_eq!(ask(&gateway.address, "POST", "/chat", &own, b"model=words&message=x").status, 200);
}

#[test]
fn an_answer_that_the_server_gave_up_is_none() {
    let (_server, gateway) = both(&[]);
    let page = send(&gateway, "model=given-up&message=x");
    assert_eq!(page.status, 503, "{}", page.text());
    assert!(page.text().contains("stopped the answer before it was complete"), "{}", page.text());
    let answered = send(&gateway, "model=words&message=x");
    let event = gateway.event(answered.header("x-request-id").expect("an id"));
    assert_eq!(event["first_token_ms"], 3.0, "{event}");
}

#[test]
fn without_a_chat_model_the_page_says_what_to_run() {
    let (_server, gateway) = both(&[]);
    let text = get(&gateway.address, "/chat").text();
    for there in ["No chat model is served.", "<code>scripts/up</code>", "data-send disabled"] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    let alone = Gateway::start("127.0.0.1:1", &[]);
    let page = get(&alone.address, "/chat");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("The model server cannot be asked."), "{}", page.text());
}

/// A script that is not there would end the page's work without a word.
#[test]
fn every_file_that_the_page_and_its_scripts_name_is_there() {
    let (_server, gateway) = both(&[]);
    let page = get(&gateway.address, "/chat").text();
    let named = page.split("\"/assets/").skip(1).filter_map(|part| part.split('"').next());
    let mut waiting: Vec<String> = named.map(|path| format!("/assets/{path}")).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let file = get(&gateway.address, &path);
        assert_eq!(file.status, 200, "{path}");
        let folder = path.rsplit_once('/').expect("a path").0;
        let imported = file.text();
        let imported = imported.split(" from \"./").skip(1).filter_map(|part| part.split('"').next());
        waiting.extend(imported.map(|name| format!("{folder}/{name}")));
    }
    assert_eq!(seen.len(), 9, "{seen:?}");
}
