//! Calls in TTHeader: bytes of Kitex v0.15.1 as they came, answers in kind, and headers that lie.

#![allow(clippy::unwrap_used)]

mod sample;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use sample::{Sample, any_sample};
use wire::{
    ApplicationErrorKind, Carried, DecodeLimits, FrameLimits, MessageKind, Protocol, Request, Response, Sniffed,
    WireError, encode_call, sniff, split_frame, too_large,
};

/// A call of `check` with a timeout of 750 ms, a log id, a trace and a caller.
const KITEX: &[u8] = include_bytes!("golden/kitex-check.ttheader");

fn parse(frame: &[u8]) -> Result<Request, WireError> {
    Request::parse(Bytes::copy_from_slice(&frame[4..]), &DecodeLimits::default())
}

/// A frame: header blocks (padded), then the message.
fn framed(flags: u16, blocks: &[u8], message: &[u8]) -> Vec<u8> {
    let mut header = blocks.to_vec();
    header.resize(blocks.len().next_multiple_of(4), 0);
    let mut frame = BytesMut::new();
    frame.put_u32((10 + header.len() + message.len()) as u32);
    frame.put_u16(0x1000);
    frame.put_u16(flags);
    frame.put_u32(77);
    frame.put_u16((header.len() / 4) as u16);
    frame.put_slice(&header);
    frame.put_slice(message);
    frame.to_vec()
}

fn call(protocol: Protocol, sample: &Sample) -> Bytes {
    encode_call(protocol, "ping", 5, MessageKind::Call, sample).unwrap().to_bytes()
}

#[test]
fn a_call_of_kitex_is_read_with_what_its_header_says() {
    assert_eq!(sniff(KITEX, 16_384_000), Sniffed::TTHeader);
    assert!(Sniffed::TTHeader.is_served() && Sniffed::TTHeader.refusal(KITEX).is_none());
    let request = parse(KITEX).unwrap();
    assert_eq!((request.method.as_str(), request.seqid, request.protocol), ("check", 1, Protocol::Binary));
    let carried = Carried {
        timeout_ms: Some(750),
        log_id: Some("kitex-log-id-1".to_owned()),
        caller: Some("caller-x".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: None,
        key: None,
    };
    assert_eq!(request.carried(), Some(&carried));
    assert_eq!(request.frame_bytes(), KITEX.len() - 4);
}

#[test]
fn answers_come_in_kind_and_only_to_calls_in_kind() {
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let sample = Sample { blob: Some(Bytes::from(vec![7; wire::BY_REFERENCE])), int: Some(4), ..Sample::default() };
        let plain = call(protocol, &sample);
        let code = if protocol == Protocol::Binary { 0 } else { 2 };
        // With a length in front of the message, as Kitex sends it, and without.
        for message in [&plain[..], &plain[4..]] {
            let request = parse(&framed(0, &[code, 0], message)).unwrap();
            assert_eq!(request.args::<Sample>().unwrap(), sample);
            let request = request.without_body();
            let error = request.application_error(ApplicationErrorKind::UnknownMethod, "x");
            for answer in [request.reply(&sample), request.exception(&sample), error] {
                assert_eq!(answer.seqid(), 5);
                let answer = answer.to_bytes();
                let (head, frame) = answer.split_at(18);
                assert_eq!(u32::from_be_bytes(*head.first_chunk().unwrap()) as usize, answer.len() - 4);
                assert_eq!(head[4..], [0x10, 0, 0, 0, 0, 0, 0, 77, 0, 1, code, 0, 0, 0]);
                assert_eq!(u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize, frame.len() - 4);
                let inner = Bytes::copy_from_slice(&frame[4..]);
                let response = Response::parse(inner, &DecodeLimits::default()).unwrap();
                assert_eq!((response.seqid, response.method.as_str(), response.protocol), (5, "ping", protocol));
                if response.kind == MessageKind::Reply {
                    let result = response.result::<Sample, Sample>().unwrap();
                    assert_eq!(result.unwrap_or_else(|thrown| thrown), sample);
                }
            }
        }
        let request = parse(&plain).unwrap();
        assert!(request.carried().is_none());
        assert_eq!(request.reply(&sample).to_bytes()[4], if protocol == Protocol::Binary { 0x80 } else { 0x82 });
    }
}

#[test]
fn names_of_the_log_id_the_trace_and_the_key_are_found_however_they_are_handed_on() {
    let text = |pairs: &[(&str, &str)]| {
        let mut blocks = vec![0, 0, 0x11, 0, 2, b't', b'k', 1];
        blocks.put_u16(pairs.len() as u16);
        for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
            blocks.put_u16(text.len() as u16);
            blocks.put_slice(text.as_bytes());
        }
        let message = call(Protocol::Binary, &Sample::default());
        parse(&framed(1, &blocks, &message)).unwrap().carried().unwrap().clone()
    };
    let seen = text(&[("RPC_PERSIST_LOGID", "a-1"), ("RPC_TRANSIT_traceparent", "00-1"), ("isn", "Inference")]);
    assert_eq!((seen.log_id.as_deref(), seen.traceparent.as_deref()), (Some("a-1"), Some("00-1")));
    assert_eq!(text(&[("log-id", "b")]).log_id.as_deref(), Some("b"));
    let long = "x".repeat(257);
    let state = |text: Carried| text.tracestate;
    assert_eq!(state(text(&[("RPC_PERSIST_TRACESTATE", &long)])), Some(long.clone()));
    assert_eq!(state(text(&[("tracestate", &"x".repeat(4_097))])), None);
    let token = Carried { key: Some("tk".to_owned()), ..Carried::default() };
    assert_eq!(text(&[("logid", &long), ("logid", ""), ("LOGIDS", "c"), ("outboard-key", "")]), token);
    assert_eq!(text(&[("RPC_TRANSIT_OUTBOARD_KEY", "ob_x")]).key.as_deref(), Some("ob_x"));
}

#[test]
fn what_is_not_served_or_lies_is_refused_in_words() {
    let message = call(Protocol::Binary, &Sample::default());
    let twice = [&message[..], &message[..]].concat();
    let huge: Vec<u8> = [0, 0].into_iter().chain(std::iter::repeat_n(0, 70_000)).collect();
    for (frame, words) in [
        (framed(2, &[0, 0], &message), "stream"),
        (framed(8, &[0, 0], &message), "stream"),
        (framed(16, &[0, 0], &message), "sasl"),
        (framed(0, &[4, 0], &message), "neither binary nor compact"),
        (framed(0, &[0, 1, 1], &message), "transform"),
        (framed(0, &[0, 0, 0x77], &message), "unknown kind"),
        (framed(0, &[0, 0, 1, 0xff, 0xff], &message), "ends early"),
        (framed(0, &[0, 0, 1, 0, 1, 0xff, 0xff, 1], &message), "ends early"),
        (framed(0, &[0, 0, 0x10, 0, 1, 0, 12, 0xff, 0xff], &message), "ends early"),
        (framed(0, &[0, 0, 0x11, 0xff, 0xff], &message), "ends early"),
        (framed(0, &[], &message), "ends early"),
        (framed(0, &[0, 0], b"\0\0\0\x04\x80\x02\0\x01"), "neither strict binary"),
        (framed(0, &huge, &message), "64 KiB"),
        (framed(0, &[0, 0], &twice), "more than one message"),
        (framed(0, &[0, 0], &message[..3]), "ends early"),
    ] {
        let error = parse(&frame).map(|request| request.method).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    for timeout in ["0", "-5", "soon", "99999999999"] {
        let mut blocks = vec![0, 0, 0x10, 0, 1, 0, 12, 0, timeout.len() as u8];
        blocks.put_slice(timeout.as_bytes());
        assert_eq!(parse(&framed(0, &blocks, &message)).unwrap().carried(), Some(&Carried::default()), "{timeout}");
    }
}

#[test]
fn a_frame_over_the_limit_is_answered_in_kind() {
    let answer = too_large(KITEX, 100).unwrap();
    assert_eq!(answer[4..18], [0x10, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    let response = Response::parse(Bytes::from(answer[22..].to_vec()), &DecodeLimits::default()).unwrap();
    let error = response.result::<Sample, Sample>().unwrap_err();
    assert_eq!(error.to_string(), "frame of 236 bytes is over the limit of 100 bytes");
}

proptest! {
    // Each case has thousands of cuts.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_stream_cut_at_every_point_gives_the_same_calls(sample in any_sample(), compact: bool) {
        let protocol = if compact { Protocol::Compact } else { Protocol::Binary };
        let message = call(protocol, &sample);
        let stream = [KITEX, &framed(0, &[0, 0], &message[4..]), &message, &framed(1, &[2, 0], &message), KITEX].concat();
        let limits = FrameLimits::default();
        for cut in 0..=stream.len() {
            let mut buffer = BytesMut::new();
            let mut calls = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                buffer.put_slice(part);
                while let Some(frame) = split_frame(&mut buffer, &limits).unwrap() {
                    calls.push(Request::parse(frame, &DecodeLimits::default()).unwrap());
                }
            }
            prop_assert_eq!(calls.len(), 5);
            for (call, in_header) in calls.iter().zip([true, true, false, true, true]) {
                prop_assert_eq!(call.carried().is_some(), in_header);
                prop_assert_eq!(call.method.as_str(), if call.carried() == calls[0].carried() { "check" } else { "ping" });
            }
            if cut % 16 == 0 {
                for call in &calls[1..4] {
                    prop_assert_eq!(&call.args::<Sample>().unwrap(), &sample);
                }
            }
        }
    }

}

proptest! {
    #[test]
    fn a_header_that_is_cut_or_damaged_never_panics(at in 0..240_usize, byte: u8) {
        let mut frame = KITEX.to_vec();
        frame[at] = byte;
        let _ = parse(&frame);
        let _ = too_large(&frame, 100);
        let cut = parse(&KITEX[..at.max(4)]);
        // Once the message's head is there the rest may still be on its way.
        prop_assert!(cut.is_err() || at >= 235, "cut at {}", at);
    }

    #[test]
    fn random_blocks_never_panic(blocks in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize) {
        let message = call(Protocol::Binary, &Sample::default());
        let start: &[u8] = [&[0, 0, 1], &[0, 0, 0x10], &[0, 0, 0x11], &[0, 0, 0]][kind];
        if let Ok(request) = parse(&framed(0, &[start, &blocks].concat(), &message)) {
            let _ = request.reply(&Sample::default());
        }
    }
}
