//! Frames of Apache's own library (golden/make.py): read, and written again to the same bytes; plain and with the names of
//! `TMultiplexedProtocol`.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use bytes::Bytes;
use idl::fault::{Fault, FaultCode};
use idl::{chat, health, inference};
use serde_json::Value;
use wire::{
    ApplicationErrorKind, DecodeLimits, MessageKind, Protocol, Request, Response, ResponseError, TSerializable,
    encode_call,
};

struct Golden {
    what: String,
    service: Option<String>,
    method: String,
    protocol: Protocol,
    frame: Bytes,
}

fn golden() -> Vec<Golden> {
    let frames: Value = serde_json::from_str(include_str!("golden/frames.json")).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let hex = |text: &str| -> Bytes {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let frames = frames.as_array().unwrap().iter();
    frames
        .map(|frame| Golden {
            what: text(&frame["what"]).unwrap(),
            service: text(&frame["service"]),
            method: text(&frame["method"]).unwrap(),
            protocol: if frame["protocol"] == "compact" { Protocol::Compact } else { Protocol::Binary },
            frame: hex(frame["frame"].as_str().unwrap()),
        })
        .collect()
}

fn call<Q: TSerializable + PartialEq + Debug>(golden: &Golden) -> Q {
    let request = Request::parse(golden.frame.slice(4..), &DecodeLimits::default()).unwrap();
    assert_eq!((request.method.as_str(), request.service.as_deref()), (&*golden.method, golden.service.as_deref()));
    assert_eq!((request.protocol, request.seqid), (golden.protocol, 0));
    let name = golden.service.as_ref().map_or(golden.method.clone(), |service| format!("{service}:{}", golden.method));
    let args: Q = request.args().unwrap();
    let kind = if golden.method == "cancel" { MessageKind::Oneway } else { MessageKind::Call };
    assert_eq!(request.kind, kind);
    let again = encode_call(golden.protocol, &name, 0, kind, &args).unwrap().to_bytes();
    assert_eq!(again, golden.frame, "{name} {:?}", golden.protocol);
    args
}

/// What a client reads in the frame, and that a server's answer is the same frame, also to a call with a service's name.
fn answer<R: TSerializable>(golden: &Golden) -> Result<R, Fault> {
    let response = Response::parse(golden.frame.slice(4..), &DecodeLimits::default()).unwrap();
    assert_eq!((response.method.as_str(), response.protocol), (&*golden.method, golden.protocol));
    let result = response.result::<R, Fault>().unwrap();
    for name in [golden.method.clone(), format!("Service:{}", golden.method)] {
        let request = asked(golden.protocol, &name);
        let again = match &result {
            Ok(value) => request.reply(value),
            Err(fault) => request.exception(fault),
        };
        assert_eq!(again.to_bytes(), golden.frame, "{name} {:?}", golden.protocol);
    }
    result
}

fn asked(protocol: Protocol, name: &str) -> Request {
    let call = encode_call(protocol, name, 0, MessageKind::Call, &health::CheckRequest::default()).unwrap();
    Request::parse(call.to_bytes().slice(4..), &DecodeLimits::default()).unwrap()
}

#[test]
fn calls_of_apaches_library_are_read_and_written_alike() {
    let mut seen = 0;
    for golden in golden().iter().filter(|golden| golden.what == "call") {
        seen += 1;
        match golden.method.as_str() {
            "check" => {
                let args = call::<health::CheckRequest>(golden);
                assert_eq!(args.model.as_deref(), Some("世界"));
                assert_eq!(args.base.unwrap().timeout_ms, Some(1_500));
            }
            "infer" => {
                let tensor = call::<inference::InferRequest>(golden).inputs.unwrap().remove(0);
                assert_eq!(tensor.shape.unwrap(), [1, -1, 1 << 40]);
                assert_eq!(tensor.strings.unwrap(), ["Grüße", ""]);
            }
            "classify" => assert_eq!(call::<inference::ClassifyRequest>(golden).preview_px, Some(-1)),
            "cancel" => assert_eq!(call::<inference::CancelRequest>(golden).call_id.unwrap(), &[0; 16][..]),
            "complete" => {
                let sampling = call::<chat::ChatRequest>(golden).sampling.unwrap();
                assert_eq!((sampling.seed, sampling.logit_bias.unwrap()[&7]), (Some(-1), (-1.5).into()));
            }
            "next_pieces" => assert_eq!(call::<chat::NextRequest>(golden).from_piece, Some(1 << 33)),
            other => panic!("{other} is not looked at"),
        }
    }
    assert_eq!(seen, 24);
}

#[test]
fn answers_of_apaches_library_are_read_and_written_alike() {
    let mut seen = 0;
    for golden in golden() {
        let fault = match (golden.what.as_str(), golden.method.as_str()) {
            ("call", _) => continue,
            ("exception", _) => {
                let response = Response::parse(golden.frame.slice(4..), &DecodeLimits::default()).unwrap();
                let kind = ApplicationErrorKind::UnknownMethod;
                let message = "no method x is served here";
                let read = response.result::<health::CheckReply, Fault>().unwrap_err();
                assert_eq!(read, ResponseError::Application { kind, message: message.to_owned() });
                let again = asked(golden.protocol, "Service:x").application_error(kind, message);
                assert_eq!(again.to_bytes(), golden.frame);
                None
            }
            (_, "check") => answer::<health::CheckReply>(&golden).err(),
            (_, "classify") => answer::<inference::ClassifyReply>(&golden).err(),
            (_, "next_pieces") => answer::<chat::NextReply>(&golden).err(),
            (what, method) => panic!("{what} of {method} is not looked at"),
        };
        seen += 1;
        assert_eq!(fault.is_some(), golden.what == "fault");
        assert!(fault.is_none_or(|fault| fault.code == Some(FaultCode::NOT_FOUND)));
    }
    assert_eq!(seen, 14);
}
