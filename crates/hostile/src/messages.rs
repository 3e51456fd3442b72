//! The messages in frames: their heads, every request, every reply.

use std::fmt::Debug;

use bytes::Bytes;
use idl::fault::Fault;
use idl::{admin, chat, health, inference};
use wire::{
    ApplicationErrorKind, DecodeLimits, Head, Method, Protocol, Request, Response, ResponseError, TSerializable,
    WireError, encode_call,
};

use crate::choice;

/// A head is read alike by whoever reads it, and its answers can be read by a client.
pub(crate) fn envelope(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    let limits = DecodeLimits::default();
    let head = Head::read(&frame);
    if let Ok(response) = Response::parse(frame.clone(), &limits) {
        let head = head.as_ref().expect("an answer has a head");
        assert_eq!((response.protocol, response.kind, response.seqid), (head.protocol, head.kind, head.seqid));
        let _ = response.result::<health::CheckReply, Fault>();
    }
    let Ok(request) = Request::parse(frame, &limits) else { return };
    // In a TTHeader the message's own head comes later, and the answer has one, too.
    let outer = if request.carried().is_some() { 18 } else { 0 };
    if outer == 0 {
        let head = head.expect("a call has a head");
        assert_eq!((request.protocol, request.kind, request.seqid), (head.protocol, head.kind, head.seqid));
    }
    assert!(!request.method.contains(':'), "the service's name is split off");
    let answer = request.application_error(ApplicationErrorKind::UnknownMethod, "no such method").to_bytes();
    let answer = Response::parse(answer.slice(4 + outer..), &limits).expect("an answer has a head");
    assert_eq!((answer.protocol, answer.seqid, &answer.method), (request.protocol, request.seqid, &request.method));
    let said = answer.result::<health::CheckReply, Fault>();
    assert!(matches!(said, Err(ResponseError::Application { kind: ApplicationErrorKind::UnknownMethod, .. })));
    let bare = request.without_body();
    assert!(bare.args::<health::CheckRequest>().is_err());
}

macro_rules! each_method {
    ($of:ident($($argument:expr),*), $choice:expr) => {
        match $choice % 13 {
            0 => $of::<inference::ModelsRequest, inference::ModelsReply>($($argument),*),
            1 => $of::<inference::InferRequest, inference::InferReply>($($argument),*),
            2 => $of::<inference::ClassifyRequest, inference::ClassifyReply>($($argument),*),
            3 => $of::<inference::EmbedRequest, inference::EmbedReply>($($argument),*),
            4 => $of::<chat::ChatRequest, chat::ChatReply>($($argument),*),
            5 => $of::<chat::StartRequest, chat::StartReply>($($argument),*),
            6 => $of::<chat::NextRequest, chat::NextReply>($($argument),*),
            7 => $of::<chat::StopRequest, chat::StopReply>($($argument),*),
            8 => $of::<health::CheckRequest, health::CheckReply>($($argument),*),
            9 => $of::<admin::LoadRequest, admin::AdminReply>($($argument),*),
            10 => $of::<admin::UnloadRequest, admin::AdminReply>($($argument),*),
            11 => $of::<admin::StatisticsRequest, admin::StatisticsReply>($($argument),*),
            _ => $of::<inference::CancelRequest, inference::ModelsReply>($($argument),*),
        }
    };
}

/// The first byte chooses the method and the protocol, the rest are the arguments.
pub(crate) fn request(bytes: &[u8]) {
    let (first, body) = choice(bytes);
    let protocol = if first & 0x80 == 0 { Protocol::Binary } else { Protocol::Compact };
    each_method!(decode_request(protocol, body), first & 0x7f);
}

/// The first byte chooses the method and the protocol, the rest is the result.
pub(crate) fn reply(bytes: &[u8]) {
    let (first, body) = choice(bytes);
    let protocol = if first & 0x80 == 0 { Protocol::Binary } else { Protocol::Compact };
    each_method!(decode_reply(protocol, body), first & 0x3f);
    let kind = if first & 0x40 == 0 { 2 } else { 3 };
    let Ok(response) = Response::parse(message(protocol, kind, body), &DecodeLimits::default()) else { return };
    let _ = response.result::<health::CheckReply, Fault>();
}

fn message(protocol: Protocol, kind: u8, body: &[u8]) -> Bytes {
    let head = match protocol {
        Protocol::Binary => vec![0x80, 0x01, 0, kind, 0, 0, 0, 1, b'm', 0, 0, 0, 7],
        Protocol::Compact => vec![0x82, kind << 5 | 1, 7, 1, b'm'],
    };
    Bytes::from([&head, body].concat())
}

fn parse<T: TSerializable>(frame: Bytes) -> Result<T, WireError> {
    Request::parse(frame, &DecodeLimits::default())?.args()
}

/// What was decoded is the same after it was written and read again, in either protocol.
#[expect(clippy::extra_unused_type_parameters, reason = "each_method! names a method's request and reply")]
fn decode_request<Q: TSerializable + PartialEq + Debug, R>(protocol: Protocol, body: &[u8]) {
    let Ok(args) = parse::<Q>(message(protocol, 1, body)) else { return };
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let frame = encode_call(protocol, "m", 7, wire::MessageKind::Call, &args).expect("it was small enough to come");
        // Empty structs may be more in number than the new message's bytes allow, when the old one had others besides.
        if let Ok(again) = parse::<Q>(frame.to_bytes().slice(4..)) {
            assert_eq!(again, args, "{protocol:?}");
        }
    }
}

fn decode_reply<Q: TSerializable, R: TSerializable + PartialEq + Debug>(protocol: Protocol, body: &[u8]) {
    let limits = DecodeLimits::default();
    let method = Method::<Q, R, Fault>::new("m", true);
    let Ok(response) = Response::parse(message(protocol, 2, body), &limits) else { return };
    let Ok(result) = response.result::<R, Fault>() else { return };
    let call = message(protocol, 1, b"\0");
    let call = Request::parse(call, &limits).expect("a call has a head");
    let frame = match &result {
        Ok(value) => call.reply(value),
        Err(fault) => call.exception(fault),
    };
    let again = Response::parse(frame.to_bytes().slice(4..), &limits).expect("an answer has a head");
    assert_eq!(again.method.as_str(), method.name);
    if let Ok(again) = again.result::<R, Fault>() {
        assert_eq!(again, result);
    }
}
