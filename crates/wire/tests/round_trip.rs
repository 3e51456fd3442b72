//! What goes out comes back, here and in the Apache crate's own protocols.

#![allow(clippy::unwrap_used)]

mod sample;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use sample::{Sample, any_sample};
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TCompactInputProtocol, TCompactOutputProtocol, TInputProtocol,
    TMessageIdentifier, TMessageType, TOutputProtocol, TSerializable, TType,
};
use wire::{
    ApplicationErrorKind, Batch, DecodeLimits, Frame, FrameLimits, MessageKind, Protocol, Request, Response,
    ResponseError, encode_call, split_frame,
};

const BOTH: [Protocol; 2] = [Protocol::Binary, Protocol::Compact];

fn payload(frame: &Frame) -> Bytes {
    let mut buffer = BytesMut::from(&frame.to_bytes()[..]);
    let payload = split_frame(&mut buffer, &FrameLimits::default()).unwrap().expect("a whole frame");
    assert!(buffer.is_empty());
    payload
}

fn request(frame: &Frame) -> Request {
    Request::parse(payload(frame), &DecodeLimits::default()).unwrap()
}

fn response(frame: &Frame) -> Response {
    Response::parse(payload(frame), &DecodeLimits::default()).unwrap()
}

fn call(protocol: Protocol, seqid: i32, sample: &Sample) -> Frame {
    encode_call(protocol, "ping", seqid, MessageKind::Call, sample).unwrap()
}

/// The message as the Apache crate reads it: name, kind, number, and field 1 of its struct.
fn apache_reads(i: &mut dyn TInputProtocol) -> (TMessageIdentifier, Sample) {
    let head = i.read_message_begin().unwrap();
    i.read_struct_begin().unwrap();
    let field = i.read_field_begin().unwrap();
    assert_eq!((field.field_type, field.id), (TType::Struct, Some(1)));
    let sample = Sample::read_from_in_protocol(i).unwrap();
    i.read_field_end().unwrap();
    assert_eq!(i.read_field_begin().unwrap().field_type, TType::Stop);
    (head, sample)
}

fn apache_writes(o: &mut dyn TOutputProtocol, seqid: i32, sample: &Sample) {
    o.write_message_begin(&TMessageIdentifier::new("ping", TMessageType::Call, seqid)).unwrap();
    o.write_struct_begin(&wire::structure()).unwrap();
    o.write_field_begin(&wire::field(TType::Struct, 1)).unwrap();
    sample.write_to_out_protocol(o).unwrap();
    o.write_field_end().unwrap();
    o.write_field_stop().unwrap();
    o.write_struct_end().unwrap();
    o.write_message_end().unwrap();
}

proptest! {
    #[test]
    fn a_call_comes_back_as_it_was(sample in any_sample(), seqid: i32) {
        for protocol in BOTH {
            let request = request(&call(protocol, seqid, &sample));
            prop_assert_eq!((request.protocol, request.seqid, request.kind), (protocol, seqid, MessageKind::Call));
            prop_assert_eq!(request.method.as_str(), "ping");
            prop_assert_eq!(&request.args::<Sample>().unwrap(), &sample);

            let reply = response(&request.reply(&sample));
            prop_assert_eq!((reply.protocol, reply.seqid, reply.kind), (protocol, seqid, MessageKind::Reply));
            prop_assert_eq!(reply.result::<Sample, Sample>().unwrap(), Ok(sample.clone()));
            let thrown = response(&request.exception(&sample));
            prop_assert_eq!(thrown.result::<Sample, Sample>().unwrap(), Err(sample.clone()));
        }
    }

    #[test]
    fn the_apache_crate_reads_what_is_written_here(sample in any_sample(), seqid: i32) {
        for protocol in BOTH {
            let payload = payload(&call(protocol, seqid, &sample));
            let (head, read) = match protocol {
                Protocol::Binary => apache_reads(&mut TBinaryInputProtocol::new(&payload[..], true)),
                Protocol::Compact => apache_reads(&mut TCompactInputProtocol::new(&payload[..])),
            };
            prop_assert_eq!(head, TMessageIdentifier::new("ping", TMessageType::Call, seqid));
            prop_assert_eq!(&read, &sample);
        }
    }

    #[test]
    fn what_the_apache_crate_writes_is_read_here(sample in any_sample(), seqid: i32) {
        for protocol in BOTH {
            let mut bytes = Vec::new();
            match protocol {
                Protocol::Binary => apache_writes(&mut TBinaryOutputProtocol::new(&mut bytes, true), seqid, &sample),
                Protocol::Compact => apache_writes(&mut TCompactOutputProtocol::new(&mut bytes), seqid, &sample),
            }
            let request = Request::parse(Bytes::from(bytes), &DecodeLimits::default()).unwrap();
            prop_assert_eq!((request.protocol, request.seqid), (protocol, seqid));
            prop_assert_eq!(&request.args::<Sample>().unwrap(), &sample);
        }
    }

    #[test]
    fn another_number_is_the_same_as_encoding_with_it(sample in any_sample(), first: i32, second: i32) {
        for protocol in BOTH {
            let mut frame = call(protocol, first, &sample);
            frame.set_seqid(second);
            prop_assert_eq!(frame.seqid(), second);
            prop_assert_eq!(frame.to_bytes(), call(protocol, second, &sample).to_bytes());
            prop_assert_eq!(frame.len(), frame.to_bytes().len());
        }
    }

    #[test]
    fn a_batch_is_its_frames_in_order_however_it_is_drained(
        samples in prop::collection::vec((any_sample(), any::<bool>()), 0..6),
        steps in prop::collection::vec(1_usize..20_000, 1..50),
    ) {
        let mut batch = Batch::new();
        let mut whole = Vec::new();
        for (sample, compact) in &samples {
            let frame = call(BOTH[usize::from(*compact)], 7, sample);
            whole.extend_from_slice(&frame.to_bytes());
            batch.push(frame);
        }
        let mut drained = Vec::new();
        let mut steps = steps.iter().cycle();
        while batch.has_remaining() {
            prop_assert_eq!(batch.remaining(), whole.len() - drained.len());
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let filled = batch.chunks_vectored(&mut slices);
            let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            prop_assert!(seen.starts_with(batch.chunk()) && !batch.chunk().is_empty());
            let step = seen.len().min(*steps.next().expect("cycle"));
            drained.extend_from_slice(&seen[..step]);
            batch.advance(step);
        }
        prop_assert!(batch.is_empty());
        prop_assert_eq!(drained, whole);
    }
}

#[test]
fn golden_calls() {
    let ping = |protocol| call(protocol, 1, &Sample { int: Some(5), ..Sample::default() }).to_bytes();
    let binary = b"\0\0\0\x1c\x80\x01\0\x01\0\0\0\x04ping\0\0\0\x01\x0c\0\x01\x08\0\x04\0\0\0\x05\0\0";
    assert_eq!(ping(Protocol::Binary), &binary[..]);
    let compact = b"\0\0\0\x0d\x82\x21\x01\x04ping\x1c\x45\x0a\0\0";
    assert_eq!(ping(Protocol::Compact), &compact[..]);
}

#[test]
fn big_blobs_travel_without_a_copy() {
    let blob = Bytes::from(vec![7; 1 << 20]);
    for protocol in BOTH {
        let sample = Sample { blob: Some(blob.clone()), ..Sample::default() };
        let frame = call(protocol, 1, &sample);
        let mut slices = Vec::new();
        frame.push_slices(&mut slices);
        assert!(slices.iter().any(|slice| slice.as_ptr() == blob.as_ptr()), "{protocol:?}: blob was copied out");

        let payload = payload(&frame);
        let args: Sample = Request::parse(payload.clone(), &DecodeLimits::default()).unwrap().args().unwrap();
        let read = args.blob.expect("sent");
        assert!(payload.as_ptr_range().contains(&read.as_ptr()), "{protocol:?}: blob was copied in");
    }
}

#[test]
fn a_failed_read_leaves_no_blob_for_the_next_message() {
    for protocol in BOTH {
        let good = Sample { blob: Some(Bytes::from_static(b"secret of another")), ..Sample::default() };
        let whole = payload(&call(protocol, 1, &good));
        for cut in 0..whole.len() {
            if let Ok(request) = Request::parse(whole.slice(..cut), &DecodeLimits::default()) {
                request.args::<Sample>().unwrap_err();
            }
            // A foreign protocol gets its own bytes, not a slice left behind.
            let mut foreign = TBinaryInputProtocol::new(&b"\0\0\0\x02ab"[..], true);
            assert_eq!(wire::read_blob(&mut foreign).unwrap(), &b"ab"[..]);
        }
    }
}

#[test]
fn application_errors_arrive_with_kind_and_text() {
    for protocol in BOTH {
        let request = request(&call(protocol, 9, &Sample::default()));
        let reply = response(&request.application_error(ApplicationErrorKind::UnknownMethod, "no method ping"));
        assert_eq!((reply.seqid, reply.kind, reply.method.as_str()), (9, MessageKind::Exception, "ping"));
        let expected = ResponseError::Application {
            kind: ApplicationErrorKind::UnknownMethod,
            message: "no method ping".to_owned(),
        };
        assert_eq!(reply.result::<Sample, Sample>().unwrap_err(), expected);
    }
}

#[test]
fn multiplexed_names_are_split_and_answered_bare() {
    for protocol in BOTH {
        let frame = encode_call(protocol, "Inference:ping", 3, MessageKind::Call, &Sample::default()).unwrap();
        let request = request(&frame);
        assert_eq!(request.service.as_deref(), Some("Inference"));
        assert_eq!(request.method.as_str(), "ping");
        assert_eq!(response(&request.reply(&Sample::default())).method.as_str(), "ping");
        assert_eq!(request.args::<Sample>().unwrap(), Sample::default());
    }
}

#[test]
fn a_reply_is_no_call_and_a_call_is_no_reply() {
    for protocol in BOTH {
        let call = call(protocol, 1, &Sample::default());
        let reply = request(&call).reply(&Sample::default());
        Request::parse(payload(&reply), &DecodeLimits::default()).unwrap_err();
        Response::parse(payload(&call), &DecodeLimits::default()).unwrap_err();
        let head = Response::peek(&payload(&reply)).unwrap();
        assert_eq!((head.protocol, head.seqid, head.kind), (protocol, 1, MessageKind::Reply));
    }
}

#[test]
fn an_unknown_result_field_is_passed_over_and_none_is_missing() {
    let limits = DecodeLimits::default();
    // A reply whose struct has field 5 of type i32 only.
    let bytes = b"\x80\x01\0\x02\0\0\0\x01p\0\0\0\x01\x08\0\x05\0\0\0\x09\0";
    let reply = Response::parse(Bytes::from_static(bytes), &limits).unwrap();
    assert_eq!(reply.result::<Sample, Sample>().unwrap_err(), ResponseError::Missing);
}

#[test]
fn the_place_of_a_big_field_is_told_from_the_first_bytes() {
    let text = |bytes| Some("t".repeat(bytes));
    for (protocol, before) in BOTH.into_iter().flat_map(|protocol| [0, 3, 100, 700].map(|before| (protocol, before))) {
        let sample = Sample { text: text(before), blob: Some(Bytes::from(vec![b'b'; 40_000])), ..Sample::default() };
        let payload = payload(&call(protocol, 1 << 30, &sample));
        let begin = wire::large_field(&payload[..1024], payload.len()).expect("it is found");
        assert_eq!(payload[begin - 1..].iter().position(|byte| *byte == b'b'), Some(1), "{protocol:?} {before}");
        assert!(payload[begin..][..40_000].iter().all(|byte| *byte == b'b'));
        // Nothing is told of a message without one, nor from bytes that end before its length.
        assert_eq!(wire::large_field(&payload[..begin - 4], payload.len()), None);
        let two = Sample { blobs: Some(vec![Bytes::from(vec![b'b'; 9_000]); 3]), ..Sample::default() };
        let payload = self::payload(&call(protocol, 1, &two));
        assert_eq!(wire::large_field(&payload, payload.len()), None, "{protocol:?}");
    }
}
