//! What each kind of stranger sends first, and what it gets for an answer.

#![allow(clippy::unwrap_used)]

mod sample;

use bytes::Bytes;
use sample::Sample;
use thrift::protocol::{TBinaryInputProtocol, TCompactInputProtocol, TInputProtocol, TMessageIdentifier, TMessageType};
use wire::{DecodeLimits, Response, Sniffed, sniff, too_large};

const LIMIT: usize = 16_384_000;

/// First bytes as captured from real clients.
const CAPTURED: [(&[u8], Sniffed); 22] = [
    (b"\0\0\0\x1c\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01", Sniffed::FramedBinary),
    (b"\0\0\0\x0d\x82\x21\x01\x04ping", Sniffed::FramedCompact),
    (b"\0\0\0\x19\0\0\0\x04ping\x01\0\0\0\x07", Sniffed::FramedOldBinary),
    (b"\0\0\0\x2c[1,\"ping\",1,0,{}]", Sniffed::FramedJson),
    (b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x09", Sniffed::UnframedBinary),
    (b"\x82\x21\x05\x04ping", Sniffed::UnframedCompact),
    (b"\0\0\0\x04ping\x01\0\0\0\x07", Sniffed::UnframedOldBinary),
    (b"\0\0\0\x02go\x01\0\0\0\x07", Sniffed::UnframedOldBinary),
    (b"[1,\"ping\",1,0,{}]", Sniffed::UnframedJson),
    (b"GET / HTTP/1.1\r\n", Sniffed::Http),
    (b"POST /v1/classify HTTP/1.1\r\n", Sniffed::Http),
    (b"OPTIONS * HTTP/1.1\r\n", Sniffed::Http),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http2),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01", Sniffed::Tls),
    (b"\0\0\0\x23\x0f\xff\0\0\0\0\0\x01\0\x01", Sniffed::THeader),
    (b"\0\0\0\xae\x10\0\0\0\0\0\0\x02\0\x21", Sniffed::TTHeader),
    (b"\x01\0\0\0\x80\x01\0\x01", Sniffed::TooLargeFrame(0x0100_0000)),
    (b"\xff\xff\xff\xff\0\0\0\0", Sniffed::Unknown),
    (b"SSH-2.0-", Sniffed::Unknown),
    (b"\0\0\0\0\0\0\0\0", Sniffed::Unknown),
    (b"\0\0\x10\0\x01\x02\x03\x04", Sniffed::Unknown),
    (b"", Sniffed::NeedMore),
];

#[test]
fn every_captured_beginning_is_recognised() {
    for (bytes, expected) in CAPTURED {
        assert_eq!(sniff(bytes, LIMIT), expected, "{bytes:02x?}");
        let answered = expected.refusal(bytes).is_some();
        assert_eq!(answered, !expected.is_served() && expected != Sniffed::NeedMore, "{expected:?}");
    }
}

#[test]
fn fewer_bytes_never_say_something_else() {
    for (bytes, expected) in CAPTURED {
        for cut in 0..bytes.len().min(8) {
            let early = sniff(&bytes[..cut], LIMIT);
            assert!(early == Sniffed::NeedMore || early == expected, "{expected:?} cut to {cut} bytes: {early:?}");
        }
    }
}

fn sniffed_answer(bytes: &[u8]) -> Vec<u8> {
    sniff(bytes, LIMIT).refusal(bytes).unwrap().bytes
}

#[test]
fn unframed_callers_are_answered_unframed_in_their_protocol() {
    let text = |input: &mut dyn TInputProtocol, seqid| {
        assert_eq!(
            input.read_message_begin().unwrap(),
            TMessageIdentifier::new("ping", TMessageType::Exception, seqid)
        );
        thrift::Error::read_application_error_from_in_protocol(input).unwrap().message
    };
    let answer = sniffed_answer(b"\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x09\0");
    assert!(text(&mut TBinaryInputProtocol::new(&answer[..], true), 9).contains("TFramedTransport"));
    let answer = sniffed_answer(b"\x82\x21\x05\x04ping\0");
    assert!(text(&mut TCompactInputProtocol::new(&answer[..]), 5).contains("TFramedTransport"));
    let answer = sniffed_answer(b"\0\0\0\x04ping\x01\0\0\0\x07\0");
    assert!(text(&mut TBinaryInputProtocol::new(&answer[..], false), 7).contains("TFramedTransport"));
    let answer = sniffed_answer(b"\0\0\0\x19\0\0\0\x04ping\x01\0\0\0\x07\0");
    assert_eq!(answer.len() as u32 - 4, u32::from_be_bytes(*answer.first_chunk().unwrap()));
    assert!(text(&mut TBinaryInputProtocol::new(&answer[4..], false), 7).contains("TFramedTransport"));
}

#[test]
fn http_gets_a_400_whose_length_is_right() {
    let answer = String::from_utf8(sniffed_answer(b"GET / HTTP/1.1\r\n\r\n")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    assert!(body.contains("framed Thrift"));
}

#[test]
fn http2_gets_settings_and_a_goodbye() {
    let answer = sniffed_answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(answer[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let length = u32::from_be_bytes([0, answer[9], answer[10], answer[11]]) as usize;
    assert_eq!(answer.len(), 9 + 9 + length);
    assert_eq!(answer[12], 7);
}

#[test]
fn tls_gets_a_handshake_failure() {
    assert_eq!(sniffed_answer(b"\x16\x03\x01\x02\x00\x01\x00\x01"), [0x15, 3, 1, 0, 2, 2, 0x28]);
}

#[test]
fn a_frame_over_the_limit_is_answered_with_both_numbers() {
    let answer = too_large(b"\x01\0\0\0\x80\x01\0\x01\0\0\0\x0eInference:ping\0\0\0\x09\x0c", LIMIT).unwrap();
    let response = Response::parse(Bytes::from(answer[4..].to_vec()), &DecodeLimits::default()).unwrap();
    assert_eq!((response.seqid, response.method.as_str()), (9, "ping"));
    let error = response.result::<Sample, Sample>().unwrap_err();
    assert_eq!(error.to_string(), "frame of 16777216 bytes is over the limit of 16384000 bytes");
    assert_eq!(too_large(b"\x01\0\0\0\x80\x01\0\x01\0\0\0\x04pi", LIMIT), None);
}
