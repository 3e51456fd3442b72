//! Chat models with the real library: the tiny ones of `crates/generate/testdata`.

mod support;

use std::path::Path;
use std::sync::Arc;

use engine::{Answers, Ask, Engine, Event, Finish, Format, Input, Message, Model, Phase, Said, State, Status, Wishes};
use fault::Kind;
use runtime::Tensor;
use support::{BOTH, House, Seen, chat_model, patient, within};

const SMALL: &str = "task = \"chat\"\n[chat]\nkv_bytes = 262144\nwaiting = 1\ntemperature = 0.0\n";

/// A model with two slots of 256 tokens, of which one more prompt may wait.
async fn two_slots() -> (House, Arc<Model>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    chat_model(&folder.path().join("m"), "tiny-llama", SMALL);
    let house = House::in_folder(folder, |_| {});
    let model = house.ready("m").await;
    (house, model)
}

fn prompt(text: &str, max_tokens: i64) -> Ask {
    Ask {
        input: Input::Prompt(text.to_owned()),
        max_tokens: Some(max_tokens),
        sampling: Wishes::default(),
        stops: Vec::new(),
        format: Format::Text,
        answers: 1,
        logprobs: None,
        owner: "me".to_owned(),
    }
}

/// The text and the end of each answer.
async fn whole(mut answers: Answers) -> Vec<(String, Finish, usize)> {
    let mut texts = vec![String::new(); answers.count()];
    let mut ends = vec![None; answers.count()];
    while let Some(said) = answers.next().await.expect("it does not fail") {
        match said {
            Said::Piece { answer, text, .. } => texts[answer].push_str(&text),
            Said::Finished { answer, finish, usage, .. } => {
                assert!(ends[answer].is_none(), "an answer ended twice");
                ends[answer] = Some((finish, usage.completion));
            }
        }
    }
    let ended = |(text, end): (String, Option<(Finish, usize)>)| {
        let (finish, completion) = end.expect("every answer ends");
        (text, finish, completion)
    };
    texts.into_iter().zip(ends).map(ended).collect()
}

async fn ask(model: &Model, ask: Ask) -> Vec<(String, Finish, usize)> {
    whole(model.chat(ask, patient()).await.expect("it is taken")).await
}

#[tokio::test]
async fn the_answer_is_the_one_that_the_graph_gives_alone_and_its_way_is_told() {
    let (mut house, model) = two_slots().await;
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../generate/testdata/tiny-llama/golden.json"),
    );
    let golden: serde_json::Value = serde_json::from_str(&text.expect("is in the tree")).expect("JSON");
    let golden = &golden[0];
    let question = golden["prompt"].as_str().expect("a text");
    let answers = ask(&model, prompt(question, 40)).await;
    assert_eq!(answers, [(golden["text"].as_str().expect("a text").to_owned(), Finish::Length, 40)]);
    for phase in [Phase::Tokenize, Phase::Queue, Phase::Prefill, Phase::Generate] {
        house.see(Seen::Phase(phase)).await;
    }
    let load = model.chat_load().expect("it is loaded");
    assert_eq!((load.slots, load.generated_tokens), (2, 40));
    let slots = model.describe().slots.expect("it is loaded");
    assert_eq!((slots.count, slots.context, slots.bytes), (2, 256, 131_072));
}

#[tokio::test]
async fn each_task_has_its_own_calls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    chat_model(&folder.path().join("talks"), "tiny-llama", SMALL);
    std::fs::create_dir_all(folder.path().join("no-chat/1")).expect("a folder");
    std::fs::copy(support::testdata("echo_f32"), folder.path().join("no-chat/1/model.onnx")).expect("a copy");
    let house = House::in_folder(folder, |_| {});
    let (talks, tensors) = (house.ready("talks").await, house.ready("no-chat").await);
    let x = vec![("x".to_owned(), Tensor::from_f32(&[1], &[1.0]))];
    let faults = [
        talks.infer(x, Vec::new(), patient()).await.expect_err("it chats"),
        talks.classify(Vec::new(), BOTH, patient()).await.expect_err("it chats"),
        tensors.chat(prompt("Once", 1), patient()).await.err().expect("it does not chat"),
    ];
    for (fault, says) in faults.iter().zip(["is for chat", "is for chat", "is for tensor"]) {
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("model")), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
}

#[tokio::test]
async fn a_conversation_goes_through_the_models_template() {
    let (_house, model) = two_slots().await;
    let message = |role: &str| Message { role: role.to_owned(), content: "Hello".to_owned(), name: None };
    let talk = |messages| Ask { input: Input::Messages(messages), ..prompt("", 4) };
    let answers = model.chat(talk(vec![message("user")]), patient()).await.expect("it is taken");
    let framed = answers.prompt_tokens();
    drop(answers);
    let answers = model.chat(prompt("Hello", 4), patient()).await.expect("it is taken");
    assert!(framed > answers.prompt_tokens(), "{framed} tokens with the template");
}

#[tokio::test]
async fn limits_are_told_with_their_numbers() {
    let (mut house, model) = two_slots().await;
    let refused = async |ask: Ask| model.chat(ask, patient()).await.err().expect("it is refused");
    let long = "word ".repeat(300);
    let fault = refused(prompt(&long, 1)).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("prompt")), "{fault}");
    assert!(fault.message.contains(" tokens") && fault.message.contains("256"), "{fault}");
    let fault = refused(prompt(&"x".repeat(1 << 20), 1)).await;
    assert_eq!(fault.kind, Kind::TooLarge);
    assert!(fault.message.contains("1048576 bytes"), "{fault}");
    // Neither is rendered: the template would work on them for seconds.
    let said = |content: &str| Message { role: "user".to_owned(), content: content.to_owned(), name: None };
    let talk = |messages| Ask { input: Input::Messages(messages), ..prompt("", 1) };
    for (messages, says) in [(vec![said("x"); 257], "257 messages"), (vec![said(&"x".repeat(1 << 20))], "bytes")] {
        let fault = refused(talk(messages)).await;
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("messages")), "{fault}");
        assert!(fault.message.contains(says) && fault.message.contains("256"), "{fault}");
    }
    let fault = refused(prompt("Once", 256)).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::TooLarge, Some("max_tokens")), "{fault}");
    assert!(fault.message.contains("256 of answer"), "{fault}");
    let fault = refused(Ask { sampling: Wishes { top_p: Some(2.0), ..Wishes::default() }, ..prompt("Once", 1) }).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("top_p")), "{fault}");
    let fault = refused(Ask { format: Format::JsonSchema("no".to_owned()), ..prompt("Once", 1) }).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("format")), "{fault}");
    // It passes, and is too much work at the first token.
    let link = |at: usize| {
        (format!("a{at}"), serde_json::json!({"anyOf": [{"$ref": format!("#/$defs/a{}", at + 1)}, {"type": "null"}]}))
    };
    let mut links: serde_json::Map<String, serde_json::Value> = (0..1_100).map(link).collect();
    links.insert("a1100".to_owned(), serde_json::json!({"type": "integer"}));
    let schema = serde_json::json!({"$ref": "#/$defs/a0", "$defs": links}).to_string();
    let asked = Ask { format: Format::JsonSchema(schema), ..prompt("Once", 5) };
    let mut answers = model.chat(asked, patient()).await.expect("it is taken");
    let fault = answers.next().await.expect_err("it cannot be kept");
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("format")), "{fault}");
    drop(answers);
    // Two slots and one that waits.
    let fault = refused(Ask { answers: 4, ..prompt("Once", 200) }).await;
    assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some("n")), "{fault}");
    assert!(fault.message.contains("4 answers are wanted at once, 3 can be taken"), "{fault}");
    // All or none: what is in work stays, what came with it does not.
    let running = model.chat(Ask { answers: 2, ..prompt("Once", 250) }, patient()).await.expect("it is taken");
    let fault = refused(Ask { answers: 2, ..prompt("Once", 200) }).await;
    assert_eq!((fault.kind, fault.retry_after.is_some()), (Kind::Overloaded, true), "{fault}");
    assert!(fault.message.contains("the limit is 1"), "{fault}");
    house.see(Seen::Event(Event::Full)).await;
    drop(running);
    idle(&model).await;
}

/// Waits until no slot is in use; a test that waits in vain is ended by its runner.
async fn idle(model: &Model) {
    while model.load().0 + model.load().1 > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_that_nobody_waits_for_give_their_slots_back() {
    let (mut house, model) = two_slots().await;
    let mut answers = model.chat(Ask { answers: 3, ..prompt("Once", 250) }, patient()).await.expect("it is taken");
    let Said::Piece { .. } = answers.next().await.expect("no fault").expect("a token") else { panic!("no piece") };
    drop(answers);
    house.see(Seen::Event(Event::Cancelled)).await;
    idle(&model).await;
    assert_eq!(ask(&model, prompt("Once", 3)).await[0].2, 3, "the next is served");
}

#[tokio::test]
async fn several_answers_differ_and_the_first_is_that_of_one() {
    let (_house, model) = two_slots().await;
    let sampling = Wishes { temperature: Some(1.5), seed: Some(11), ..Wishes::default() };
    let three = ask(&model, Ask { answers: 3, sampling: sampling.clone(), ..prompt("Once", 12) }).await;
    let one = ask(&model, Ask { sampling, ..prompt("Once", 12) }).await;
    assert_eq!(three[0], one[0]);
    assert!(three[1].0 != three[0].0 && three[2].0 != three[0].0 && three[1].0 != three[2].0, "{three:?}");
}

#[tokio::test]
async fn a_stop_text_ends_an_answer_and_is_named() {
    let (_house, model) = two_slots().await;
    let whole = ask(&model, prompt("Once", 20)).await.remove(0).0;
    let middle = whole.char_indices().nth(whole.chars().count() / 2).map(|(at, _)| at).expect("it has characters");
    let stop: String = whole[middle..].chars().take(2).collect();
    let stopped = ask(&model, Ask { stops: vec![stop.clone()], ..prompt("Once", 20) }).await.remove(0);
    assert_eq!(stopped.1, Finish::Stop(stop.clone()));
    assert!(whole.starts_with(&stopped.0) && !stopped.0.contains(&stop), "{stopped:?} of {whole:?}");
}

#[tokio::test]
async fn log_probabilities_come_with_the_tokens_bytes() {
    let (_house, model) = two_slots().await;
    let mut answers = model.chat(Ask { logprobs: Some(2), ..prompt("Once", 5) }, patient()).await.expect("it is taken");
    let (mut tokens, mut bytes, mut texts) = (0, Vec::new(), String::new());
    while let Some(said) = answers.next().await.expect("it does not fail") {
        let Said::Piece { text, token, .. } = said else { continue };
        texts.push_str(&text);
        let Some(token) = token else { continue };
        tokens += 1;
        assert_eq!(token.top.len(), 2);
        // Greedy: the likeliest was taken.
        assert_eq!((token.id, token.logprob), (token.top[0].id, token.top[0].logprob));
        bytes.extend(token.bytes);
    }
    assert_eq!((tokens, String::from_utf8_lossy(&bytes).into_owned()), (5, texts));
}

#[tokio::test]
async fn a_deadline_ends_all_answers() {
    let (mut house, model) = two_slots().await;
    let mut busy = model.chat(Ask { answers: 2, ..prompt("Once", 250) }, patient()).await.expect("it is taken");
    // Over before it begins.
    let fault = model.chat(prompt("Once", 250), within(0)).await.err().expect("it is over");
    assert_eq!(fault.kind, Kind::DeadlineExceeded, "{fault}");
    house.see(Seen::Event(Event::Expired)).await;
    busy.next().await.expect("the others go on").expect("a token");
    drop(busy);
    idle(&model).await;
}

#[tokio::test]
async fn a_first_token_that_does_not_come_ends_the_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    chat_model(&folder.path().join("m"), "tiny-llama", &SMALL.replace("waiting = 1\n", "waiting = 64\n"));
    let house = House::in_folder(folder, |settings| settings.first_token = std::time::Duration::ZERO);
    let model = house.ready("m").await;
    // Both slots are taken, and for so long that no token of what comes after them can be there when it is asked for.
    let others = Ask { answers: 16, ..prompt("Once", 250) };
    let busy = [model.chat(others.clone(), patient()).await, model.chat(others, patient()).await];
    let mut answers = model.chat(prompt("Once", 250), patient()).await.expect("it is taken");
    let fault = answers.next().await.expect_err("nothing has come");
    assert_eq!(fault.kind, Kind::DeadlineExceeded);
    assert!(fault.message.contains("no token had come"), "{fault}");
    busy.into_iter().for_each(|busy| drop(busy.expect("it is taken")));
}

#[tokio::test]
async fn what_a_folder_lacks_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let small = "task = \"chat\"\n[chat]\nkv_bytes = 1000\n";
    chat_model(&folder.path().join("a-small"), "tiny-llama", small);
    chat_model(&folder.path().join("b-mute"), "tiny-llama", SMALL);
    std::fs::remove_file(folder.path().join("b-mute/tokenizer.json")).expect("it was there");
    std::fs::create_dir_all(folder.path().join("c-tensors/1")).expect("a folder");
    std::fs::copy(support::testdata("echo_f32"), folder.path().join("c-tensors/1/model.onnx")).expect("a copy");
    for file in ["tokenizer.json", "config.json"] {
        std::fs::copy(folder.path().join("a-small").join(file), folder.path().join("c-tensors").join(file))
            .expect("a copy");
    }
    std::fs::write(folder.path().join("c-tensors/model.toml"), SMALL).expect("a file");
    chat_model(&folder.path().join("d-good"), "tiny-qwen2", SMALL);
    let house = House::in_folder(folder, |_| {});
    house.ready("d-good").await;
    for (name, says) in
        [("a-small", "`chat.kv_bytes` is 1000"), ("b-mute", "tokenizer.json"), ("c-tensors", "GroupQueryAttention")]
    {
        let State::Failed(reason) = house.engine.model(name, None).expect("is known").settled().await else {
            panic!("{name} is ready")
        };
        assert!(reason.contains(says), "{name}: {reason}");
    }
    health(&house.engine);
}

fn health(engine: &Engine) {
    let health = engine.health(Some("d-good")).expect("is known");
    assert_eq!((health.status, health.live, health.models[0].waiting), (Status::Serving, true, 0));
}

/// Every core waited for the compiler, and plain chats waited for the cores.
#[tokio::test]
async fn schemas_that_are_compiled_keep_no_plain_chat_waiting() {
    let (_house, model) = two_slots().await;
    // Each takes the compiler a while, and none is known from another.
    let schema = |at: usize| format!("{{\"multipleOf\": 19997, \"description\": \"{at}\"}}");
    let compiled = |at: usize| {
        let (model, format) = (Arc::clone(&model), Format::JsonSchema(schema(at)));
        let asked = Ask { format, owner: at.to_string(), ..prompt("Once", 1) };
        tokio::spawn(async move { model.chat(asked, patient()).await.map(drop) })
    };
    let many: Vec<_> = (0..24).map(compiled).collect();
    // They are all on their way before it.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&model, prompt("Once", 1)).await.len(), 1);
    let left = many.iter().filter(|one| !one.is_finished()).count();
    assert!(left > 8, "{left} of 24 are still compiled");
    for one in many {
        // A slow machine may have no time for the last ones.
        drop(one.await.expect("it does not panic"));
    }
}

#[tokio::test]
async fn a_turn_that_does_not_end_is_trouble() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    chat_model(&folder.path().join("m"), "tiny-llama", SMALL);
    // No turn is as short as that.
    let house = House::in_folder(folder, |settings| settings.wedged_after = std::time::Duration::ZERO);
    let model = house.ready("m").await;
    assert_eq!(model.trouble(), None, "nothing is in work");
    let mut running = model.chat(prompt("Once", 250), patient()).await.expect("it is taken");
    let (what, _) = loop {
        if let Some(trouble) = model.trouble() {
            break trouble;
        }
        // This thread was held up for as long as the answer took.
        if model.load().0 + model.load().1 == 0 {
            running = model.chat(prompt("Once", 250), patient()).await.expect("it is taken");
        }
    };
    assert_eq!(what, "hangs in a turn of generating");
    drop(running);
    idle(&model).await;
    while model.trouble().is_some() {
        tokio::task::yield_now().await;
    }
}
