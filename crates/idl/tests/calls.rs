//! Calls through the generated types, from a client's bytes to the trait and back.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use idl::base::Base;
use idl::chat::{ChatRequest, Message, Sampling};
use idl::fault::{Fault, FaultCode};
use idl::inference::{
    CancelRequest, ClassifyReply, ClassifyRequest, DataType, EmbedReply, EmbedRequest, InferReply, InferRequest,
    ModelsReply, ModelsRequest, Tensor,
};
use idl::{Dispatched, Handling, Inference, dispatch_inference, methods};
use proptest::prelude::*;
use wire::{
    ApplicationErrorKind, DecodeLimits, MessageKind, Protocol, Request, Response, ResponseError, TSerializable,
};

/// Answers with what it was asked, where it can.
#[derive(Default)]
struct Echo {
    cancelled: AtomicUsize,
}

impl Inference for Echo {
    type Context = &'static str;

    async fn models(&self, cx: &'static str, request: ModelsRequest) -> Result<ModelsReply, Fault> {
        let text = format!("{cx} asked for {:?}", request.model);
        Err(Fault { code: Some(FaultCode::NOT_FOUND), message: Some(text), ..Fault::default() })
    }

    async fn infer(&self, _: &'static str, request: InferRequest) -> Result<InferReply, Fault> {
        Ok(InferReply { outputs: request.inputs, model: request.model, ..InferReply::default() })
    }

    async fn classify(&self, _: &'static str, _: ClassifyRequest) -> Result<ClassifyReply, Fault> {
        Ok(ClassifyReply::default())
    }

    async fn embed(&self, _: &'static str, _: EmbedRequest) -> Result<EmbedReply, Fault> {
        Ok(EmbedReply::default())
    }

    async fn cancel(&self, _: &'static str, _: CancelRequest) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

fn request<Q: TSerializable>(protocol: Protocol, name: &str, kind: MessageKind, args: &Q) -> Request {
    let frame = wire::encode_call(protocol, name, 7, kind, args).unwrap().to_bytes();
    Request::parse(frame.slice(4..), &DecodeLimits::default()).unwrap()
}

fn offer(service: &Arc<Echo>, request: Request) -> Handling {
    dispatch_inference(service, "somebody", request).or_unknown_method()
}

/// The handlers here never wait.
fn finish(mut handling: Handling) -> Option<Response> {
    let Poll::Ready(reply) = handling.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("an echo waits for nothing");
    };
    reply.map(|frame| Response::parse(frame.to_bytes().slice(4..), &DecodeLimits::default()).unwrap())
}

const BOTH: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

#[test]
fn a_call_reaches_its_method_and_its_answer_the_caller() {
    for protocol in BOTH {
        let tensor = Tensor {
            name: Some("input".to_owned()),
            data_type: Some(DataType::F32),
            shape: Some(vec![1, 3, 224, 224]),
            data: Some(Bytes::from(vec![3; 1 << 16])),
            strings: None,
        };
        let args = InferRequest { inputs: Some(vec![tensor.clone()]), ..InferRequest::default() };
        let service = Arc::new(Echo::default());
        let response =
            finish(offer(&service, request(protocol, methods::INFER.name, MessageKind::Call, &args))).unwrap();
        assert_eq!((response.seqid, response.method.as_str()), (7, "infer"));
        let reply = response.result::<InferReply, Fault>().unwrap().unwrap();
        assert_eq!(reply, InferReply { outputs: Some(vec![tensor]), ..InferReply::default() });
    }
}

#[test]
fn a_fault_arrives_as_the_declared_exception() {
    let args = ModelsRequest { model: Some("x".to_owned()), ..ModelsRequest::default() };
    for protocol in BOTH {
        let request = request(protocol, "Inference:models", MessageKind::Call, &args);
        let response = finish(offer(&Arc::new(Echo::default()), request)).unwrap();
        let fault = response.result::<ModelsReply, Fault>().unwrap().unwrap_err();
        assert_eq!(fault.code, Some(FaultCode::NOT_FOUND));
        assert_eq!(fault.message.as_deref(), Some("somebody asked for Some(\"x\")"));
    }
}

#[test]
fn oneway_methods_are_silent_however_they_are_called() {
    let service = Arc::new(Echo::default());
    let args = CancelRequest { call_id: Some(Bytes::from_static(&[1; 16])), ..CancelRequest::default() };
    for kind in [MessageKind::Oneway, MessageKind::Call] {
        assert!(finish(offer(&service, request(Protocol::Binary, "cancel", kind, &args))).is_none());
    }
    assert_eq!(service.cancelled.load(Ordering::Relaxed), 2);
    // Nor is there an answer to nonsense, or to an answered method that was sent oneway.
    let mut nonsense = wire::encode_call(Protocol::Binary, "cancel", 7, MessageKind::Oneway, &args).unwrap().to_bytes();
    nonsense.truncate(40);
    let nonsense = Request::parse(nonsense.slice(4..), &DecodeLimits::default()).unwrap();
    assert!(finish(offer(&service, nonsense)).is_none());
    for (name, kind) in [("classify", MessageKind::Oneway), ("nothing", MessageKind::Oneway)] {
        let request = request(Protocol::Binary, name, kind, &ClassifyRequest::default());
        assert!(finish(offer(&service, request)).is_none());
    }
    assert_eq!(service.cancelled.load(Ordering::Relaxed), 2);
}

fn application_error(response: &Response) -> (ApplicationErrorKind, String) {
    match response.result::<ClassifyReply, Fault>() {
        Err(ResponseError::Application { kind, message }) => (kind, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn arguments_that_do_not_decode_are_a_protocol_error() {
    for protocol in BOTH {
        let request = request(protocol, "classify", MessageKind::Call, &Wrong);
        let response = finish(offer(&Arc::new(Echo::default()), request)).unwrap();
        let (kind, message) = application_error(&response);
        assert_eq!(kind, ApplicationErrorKind::ProtocolError);
        assert_eq!(message, "arguments of classify: field 4 is i32 on the wire, list was expected");
    }
}

#[test]
fn methods_and_services_that_are_not_there_are_unknown() {
    for name in ["nothing", "Chat:infer", "next_pieces"] {
        let request = request(Protocol::Compact, name, MessageKind::Call, &InferRequest::default());
        let offered = dispatch_inference(&Arc::new(Echo::default()), "somebody", request);
        assert!(matches!(offered, Dispatched::NotMine(_, "somebody")));
        let (kind, message) = application_error(&finish(offered.or_unknown_method()).unwrap());
        assert_eq!(kind, ApplicationErrorKind::UnknownMethod);
        assert_eq!(message, format!("no method {name} is served here"));
    }
}

#[test]
fn absent_fields_stay_absent_and_unknown_enum_values_survive() {
    let mut sampling = Sampling { temperature: Some(0.5.into()), ..Sampling::default() };
    sampling.logit_bias = Some(BTreeMap::from([(-1, (-100.0).into()), (50_000, 2.5.into())]));
    let base = Base { priority: Some(idl::base::Priority(77)), ..Base::default() };
    let message = Message { role: Some("user".to_owned()), content: Some("привет".to_owned()), name: None };
    for args in [
        ChatRequest::default(),
        ChatRequest {
            base: Some(base),
            messages: Some(vec![message]),
            sampling: Some(sampling),
            stop: Some(vec![]),
            ..ChatRequest::default()
        },
    ] {
        for protocol in BOTH {
            let request = request(protocol, "complete", MessageKind::Call, &args);
            assert_eq!(request.args::<ChatRequest>().unwrap(), args);
        }
    }
}

/// Calls some `args::<T>()`, for the generated reader of each type that comes from outside.
fn read_all(request: &Request) {
    use idl::{admin, chat, health, inference};
    let _ = request.args::<ModelsRequest>();
    let _ = request.args::<InferRequest>();
    let _ = request.args::<ClassifyRequest>();
    let _ = request.args::<CancelRequest>();
    let _ = request.args::<ChatRequest>();
    let _ = request.args::<chat::StartRequest>();
    let _ = request.args::<chat::NextRequest>();
    let _ = request.args::<chat::StopRequest>();
    let _ = request.args::<health::CheckRequest>();
    let _ = request.args::<admin::LoadRequest>();
    let _ = request.args::<admin::UnloadRequest>();
    let _ = request.args::<admin::StatisticsRequest>();
    // Replies are read with the same code, from servers that may be broken.
    let _ = request.args::<inference::ModelsReply>();
    let _ = request.args::<chat::NextReply>();
    let _ = request.args::<Fault>();
}

proptest! {
    #[test]
    fn random_arguments_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), compact: bool) {
        let head: &[u8] = if compact { b"\x82\x21\x01\x01p\x1c" } else { b"\x80\x01\0\x01\0\0\0\x01p\0\0\0\x01\x0c\0\x01" };
        read_all(&Request::parse(Bytes::from([head, &bytes].concat()), &DecodeLimits::default()).unwrap());
    }

    #[test]
    fn damaged_arguments_never_panic(compact: bool, at: prop::sample::Index, byte: u8) {
        let tensor = Tensor { name: Some("x".to_owned()), shape: Some(vec![1, 2]), data: Some(Bytes::from_static(b"12345678")), ..Tensor::default() };
        let args = InferRequest { inputs: Some(vec![tensor.clone(), tensor]), outputs: Some(vec!["y".to_owned()]), ..InferRequest::default() };
        let frame = wire::encode_call(BOTH[usize::from(compact)], "infer", 7, MessageKind::Call, &args).unwrap();
        let mut bytes = frame.to_bytes().slice(4..).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(request) = Request::parse(Bytes::from(bytes), &DecodeLimits::default()) {
            read_all(&request);
        }
    }
}

/// Field 4 of another type than any request has there.
struct Wrong;

impl TSerializable for Wrong {
    fn read_from_in_protocol(_: &mut dyn thrift::protocol::TInputProtocol) -> thrift::Result<Self> {
        Ok(Self)
    }

    fn write_to_out_protocol(&self, o: &mut dyn thrift::protocol::TOutputProtocol) -> thrift::Result<()> {
        o.write_struct_begin(&wire::structure())?;
        o.write_field_begin(&wire::field(thrift::protocol::TType::I32, 4))?;
        o.write_i32(5)?;
        o.write_field_end()?;
        o.write_field_stop()?;
        o.write_struct_end()
    }
}

/// Sees what Base a call of `Health` came with.
struct Mirror;

impl idl::Health for Mirror {
    type Context = ();

    async fn check(&self, (): (), request: idl::health::CheckRequest) -> Result<idl::health::CheckReply, Fault> {
        Err(Fault { message: Some(format!("{:?}", request.base)), ..Fault::default() })
    }
}

/// The call of Kitex that crates/wire keeps, and the same with a Base of its own.
#[test]
fn a_ttheader_fills_what_the_request_leaves_open() {
    let frame = include_bytes!("../../wire/tests/golden/kitex-check.ttheader");
    let base_seen = |frame: Bytes| {
        let request = Request::parse(frame.slice(4..), &DecodeLimits::default()).unwrap();
        let mut handling = idl::dispatch_health(&Arc::new(Mirror), (), request).or_unknown_method();
        let Poll::Ready(Some(reply)) = handling.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("a mirror waits for nothing");
        };
        let answer = reply.to_bytes();
        assert_eq!(answer[4..6], [0x10, 0], "in kind");
        let response = Response::parse(answer.slice(22..), &DecodeLimits::default()).unwrap();
        response.result::<idl::health::CheckReply, Fault>().unwrap().unwrap_err().message.unwrap()
    };
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let base = Base {
        timeout_ms: Some(750),
        request_id: Some("kitex-log-id-1".to_owned()),
        caller: Some("caller-x".to_owned()),
        traceparent: Some(trace.to_owned()),
        ..Base::default()
    };
    assert_eq!(base_seen(Bytes::from_static(frame)), format!("{:?}", Some(base)));

    let own = Base { timeout_ms: Some(9), request_id: Some("mine".to_owned()), ..Base::default() };
    let args = idl::health::CheckRequest { base: Some(own.clone()), model: None };
    let message = wire::encode_call(Protocol::Compact, "check", 1, MessageKind::Call, &args).unwrap().to_bytes();
    // The words of the header stay, the message behind them is another one.
    let header = &frame[..14 + 4 * usize::from(u16::from_be_bytes([frame[12], frame[13]]))];
    let mut whole = [header, &message].concat();
    let length = whole.len() as u32 - 4;
    whole[..4].copy_from_slice(&length.to_be_bytes());
    let expected = Base { caller: Some("caller-x".to_owned()), traceparent: Some(trace.to_owned()), ..own };
    assert_eq!(base_seen(Bytes::from(whole)), format!("{:?}", Some(expected)));
}
