//! Texts to vectors, from the caller's side and from the operator's.

use idl::base::Base;
use idl::fault::FaultCode;
use idl::inference::{EmbedRequest, ModelsRequest, Task, TokenIds};
use idl::methods;

use crate::program::Running;

fn request(texts: &[&str]) -> EmbedRequest {
    EmbedRequest {
        base: Some(Base { request_id: Some("texts-of-the-caller".to_owned()), ..Base::default() }),
        model: Some("sentences".to_owned()),
        texts: Some(texts.iter().map(|text| (*text).to_owned()).collect()),
        ..EmbedRequest::default()
    }
}

#[test]
fn texts_and_their_tokens_have_the_same_vectors_and_are_counted_and_logged() {
    let server = Running::with_texts(&[]);
    let models = server.call(&methods::MODELS, &ModelsRequest::default()).unwrap().unwrap().models.unwrap();
    assert_eq!(models[0].task, Some(Task::EMBED));
    let reply = server.call(&methods::EMBED, &request(&["The ship moves.", "x"])).unwrap().unwrap();
    assert_eq!((reply.dimensions, reply.token_counts), (Some(24), Some(vec![6, 3])));
    assert_eq!((reply.model.as_deref(), reply.request_id.as_deref()), (Some("sentences"), Some("texts-of-the-caller")));
    let vectors = reply.vectors.unwrap();
    assert_eq!(vectors.len(), 2 * 24 * 4);
    let first: Vec<f32> = vectors[..96].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert!((first.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5, "{first:?}");
    let golden = std::fs::read_to_string("../engine/testdata/tiny-bert/golden.json").unwrap();
    assert!(golden.contains(r#""tokens": [2, 7, 4, 10, 53, 3]"#), "the tokens below are those of the first text");
    let tokens = Some(vec![TokenIds { ids: Some(vec![7, 4, 10, 53]) }]);
    let of_tokens = EmbedRequest { texts: None, tokens, dimensions: Some(3), normalise: Some(false), ..request(&[]) };
    let reply = server.call(&methods::EMBED, &of_tokens).unwrap().unwrap();
    assert_eq!((reply.dimensions, reply.token_counts), (Some(3), Some(vec![6])));
    let cut: Vec<f32> = reply.vectors.unwrap().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let ratio = cut[0] / first[0];
    assert!(cut.iter().zip(&first).all(|(cut, whole)| (cut - ratio * whole).abs() < 1e-5), "{cut:?} {first:?}");
    assert_eq!(server.metric("outboard_embed_texts_total{model=\"sentences\"}"), 3.0);
    assert_eq!(server.metric("outboard_embed_tokens_total{model=\"sentences\"}"), 15.0);
    assert_eq!(server.metric("outboard_server_calls_total{method=\"embed\",outcome=\"ok\"}"), 2.0);
    let (_, log) = server.stop();
    let line = log.lines().find(|line| line.contains("texts-of-the-caller")).expect("a line for the call");
    for part in ["\"kind\":\"embed\"", "\"tokens_in\":9", "\"rows\":2", "\"outcome\":\"ok\""] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!log.contains("ship"), "texts do not enter the log");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let server = Running::with_texts(&["limits.texts_per_call=2"]);
    let both = EmbedRequest { tokens: Some(vec![TokenIds { ids: Some(vec![4]) }]), ..request(&["x"]) };
    let long = "ship ".repeat(60);
    for (request, code, says) in [
        (request(&["x", "y", "z"]), FaultCode::TOO_LARGE, "3 texts in one call, the limit is 2"),
        (request(&["x", &long]), FaultCode::TOO_LARGE, "text 2 of the call has 62 tokens, the model takes 40"),
        (request(&[]), FaultCode::INVALID_INPUT, "there is no text"),
        (EmbedRequest { texts: None, ..request(&[]) }, FaultCode::INVALID_INPUT, "there is no text"),
        (both, FaultCode::INVALID_INPUT, "both texts and tokens"),
        (
            EmbedRequest { dimensions: Some(-1), ..request(&["x"]) },
            FaultCode::INVALID_INPUT,
            "dimensions is -1, allowed is 1 and more",
        ),
    ] {
        let fault = server.call(&methods::EMBED, &request).unwrap().unwrap_err();
        assert_eq!(fault.code, Some(code), "{fault:?}");
        assert!(fault.message.as_deref().is_some_and(|message| message.contains(says)), "{fault:?}");
    }
    let cut = EmbedRequest { truncate: Some(true), ..request(&[&long]) };
    let reply = server.call(&methods::EMBED, &cut).unwrap().unwrap();
    assert_eq!(reply.token_counts, Some(vec![40]));
}
