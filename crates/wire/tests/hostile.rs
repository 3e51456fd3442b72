//! Bytes that lie: typed errors, no panic, and no memory beyond the frame's own size.

#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(clippy::unwrap_used)]

mod sample;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use sample::{Sample, any_sample};
use wire::{
    DecodeLimits, FrameError, FrameLimits, MessageKind, Protocol, Request, Response, SNIFF_BYTES, Sniffed, WireError,
    claimed, encode_call, needed, reserve, sniff, split_frame,
};

struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The result, and all that was allocated on the way (freed or not).
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.get();
    let result = work();
    (result, ALLOCATED.get() - before)
}

/// A call whose arguments are a struct with these bytes in it.
fn binary(fields: &[u8]) -> Bytes {
    let mut frame = BytesMut::from(&b"\x80\x01\0\x01\0\0\0\x01p\0\0\0\x01\x0c\0\x01"[..]);
    frame.put_slice(fields);
    frame.freeze()
}

fn compact(fields: &[u8]) -> Bytes {
    let mut frame = BytesMut::from(&b"\x82\x21\x01\x01p\x1c"[..]);
    frame.put_slice(fields);
    frame.freeze()
}

fn decode(frame: Bytes) -> Result<Sample, WireError> {
    Request::parse(frame, &DecodeLimits::default())?.args()
}

#[test]
fn claims_without_bytes_behind_them_cost_nothing() {
    let cases: [(&str, Bytes, &str); 17] = [
        ("list of 2^31-1", binary(b"\x0f\0\x0b\x0a\x7f\xff\xff\xff"), "field 11 is list"),
        ("set of 2^31-1 longs", binary(b"\x0e\0\x0b\x0a\x7f\xff\xff\xff"), "2147483647 elements"),
        ("set of -1 longs", binary(b"\x0e\0\x0b\x0a\xff\xff\xff\xff"), "4294967295 elements"),
        ("set of 13 million longs", binary(b"\x0e\0\x0b\x0a\0\xc6\x5d\x40"), "13000000 elements"),
        ("list of 10^8 structs", binary(b"\x0f\0\x0d\x0c\x05\xf5\xe1\0"), "100000000 elements"),
        ("map of 2^31-1", binary(b"\x0d\0\x0c\x0b\x04\x7f\xff\xff\xff"), "2147483647 elements"),
        ("blob of 90 MB", binary(b"\x0b\0\x08\x05\x5d\x4a\x80abc"), "string of 90000000 bytes, 3 bytes are left"),
        ("blob of -1", binary(b"\x0b\0\x08\xff\xff\xff\xff"), "string of 4294967295 bytes"),
        ("text of 2 GB", binary(b"\x0b\0\x07\x7f\xff\xff\xff"), "string of 2147483647 bytes"),
        ("list of booleans for doubles", binary(b"\x0e\0\x0b\x02\0\0\0\x08aaaaaaaa"), "bool on the wire, i64"),
        ("unknown list of 2^31-1", binary(b"\x0f\x03\0\x0a\x7f\xff\xff\xff"), "2147483647 elements"),
        ("unknown type", binary(b"\x05\0\x01"), "type code 5"),
        ("compact set of 2^31-1", compact(b"\xba\xf6\xff\xff\xff\xff\x07"), "2147483647 elements"),
        ("compact list of 10^8 structs", compact(b"\xd9\xfc\x80\xc2\xd7\x2f"), "100000000 elements"),
        ("compact map of 2^32-1", compact(b"\xcb\xff\xff\xff\xff\x0f\x87"), "4294967295 elements"),
        ("compact blob of 2^32-1", compact(b"\x88\xff\xff\xff\xff\x0f"), "string of 4294967295 bytes"),
        ("compact endless number", compact(b"\x45\xff\xff\xff\xff\xff\xff"), "5 bytes long"),
    ];
    for (what, frame, words) in cases {
        let (result, allocated) = counted(|| decode(frame));
        let error = result.expect_err(what);
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(matches!(error, WireError::Decode { .. }), "{what}: {error:?}");
        assert!(allocated < 2_000, "{what}: {allocated} bytes were allocated");
    }
}

#[test]
fn deep_nesting_ends_at_the_limit_known_or_not() {
    let known = b"\x0f\0\x0d\x0c\0\0\0\x01".repeat(10_000);
    let unknown_struct = b"\x0c\0\x63".repeat(10_000);
    let unknown_list = [b"\x0f\0\x63\x0f".to_vec(), b"\0\0\0\x01\x0f".repeat(10_000)].concat();
    let compact_known = b"\xd9\x1c".repeat(10_000);
    let compact_unknown = b"\x0c\xc6\x01".repeat(10_000);
    for frame in [
        binary(&known),
        binary(&unknown_struct),
        binary(&unknown_list),
        compact(&compact_known),
        compact(&compact_unknown),
    ] {
        let (result, allocated) = counted(|| decode(frame));
        let error = result.unwrap_err();
        assert!(matches!(error, WireError::Decode { kind: thrift::ProtocolErrorKind::DepthLimit, .. }), "{error:?}");
        // A sample for each known level.
        assert!(allocated < 64 * 1_000, "{allocated} bytes were allocated");
    }
}

#[test]
fn many_small_things_are_counted_over_the_whole_message() {
    let limits = DecodeLimits { container: 1_000, structs: 100, ..DecodeLimits::default() };
    let decode = |sample: &Sample, protocol| {
        let frame = encode_call(protocol, "p", 1, MessageKind::Call, sample).unwrap().to_bytes().slice(4..);
        Request::parse(frame, &limits).unwrap().args::<Sample>()
    };
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let full = Sample { flags: Some(vec![true; 500]), set: Some(vec![1; 500]), ..Sample::default() };
        assert_eq!(decode(&full, protocol).unwrap(), full);
        let over = Sample { set: Some(vec![1; 501]), ..full };
        let error = decode(&over, protocol).unwrap_err();
        assert_eq!(error.to_string(), "message has more than 1000 elements");

        // The arguments' own struct and the request count, too.
        let full = Sample { nested: Some(vec![Sample::default(); 98]), ..Sample::default() };
        assert_eq!(decode(&full, protocol).unwrap(), full);
        let over = Sample { nested: Some(vec![Sample::default(); 99]), ..Sample::default() };
        assert_eq!(decode(&over, protocol).unwrap_err().to_string(), "message has more than 100 structs");
    }
}

#[test]
fn empty_structs_are_limited_by_the_bytes_of_the_message() {
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let many = Sample { nested: Some(vec![Sample::default(); 100_000]), ..Sample::default() };
        let frame = encode_call(protocol, "p", 1, MessageKind::Call, &many).unwrap().to_bytes().slice(4..);
        let bytes = frame.len();
        let (result, allocated) = counted(|| decode(frame));
        assert!(result.unwrap_err().to_string().ends_with("structs"));
        // Some 350 bytes for one, and a list that grew by doubling.
        assert!(allocated < 200 * bytes, "{allocated} bytes were allocated for a message of {bytes}");
    }
}

#[test]
fn a_field_of_another_type_is_an_error_that_names_both() {
    let error = decode(binary(b"\x08\0\x08\0\0\0\x02ab\0\0")).unwrap_err();
    assert_eq!(error.to_string(), "field 8 is i32 on the wire, string was expected");
    let error = decode(compact(b"\x75\x02\0\0")).unwrap_err();
    assert_eq!(error.to_string(), "field 7 is i32 on the wire, string was expected");
    let error = decode(binary(b"\x0d\0\x0c\x0b\x08\0\0\0\x01\0\0\0\x01k\0\0\0\x01\0\0")).unwrap_err();
    assert_eq!(error.to_string(), "field 12 is i32 on the wire, double was expected");
}

#[test]
fn text_that_is_not_utf8_is_an_error_and_a_blob_of_it_is_not() {
    decode(binary(b"\x0b\0\x07\0\0\0\x02\xff\xfe\0\0")).unwrap_err();
    assert_eq!(decode(binary(b"\x0b\0\x08\0\0\0\x02\xff\xfe\0\0")).unwrap().blob.unwrap(), &b"\xff\xfe"[..]);
    // An unknown field of type string may hold anything.
    assert_eq!(decode(binary(b"\x0b\0\x63\0\0\0\x02\xff\xfe\0\0")).unwrap(), Sample::default());
}

#[test]
fn heads_that_are_none_are_refused() {
    let long_name = [&b"\x80\x01\0\x01\0\0\x01\x01"[..], &[b'a'; 257], b"\0\0\0\x01\0"].concat();
    for frame in [
        &b""[..],
        b"\x80",
        b"\x80\x01\0\x01",
        b"\x80\x01\0\x07\0\0\0\x01p\0\0\0\x01\0",
        b"\x80\x01\0\x01\xff\xff\xff\xffp\0\0\0\x01\0",
        b"\x80\x01\0\x01\x7f\xff\xff\xffp\0\0\0\x01\0",
        b"\x80\x01\0\x01\0\0\0\x01\xff\0\0\0\x01\0",
        b"\x80\x02\0\x01\0\0\0\x01p\0\0\0\x01\0",
        b"\x82\x22\x01\x01p\0",
        b"\x82\x21\x01\xff\xff\xff\xff\x0fp",
        b"\x82\x21\xff\xff\xff\xff\xff\x01p\0",
        b"GET / HTTP/1.1\r\n",
        &long_name,
    ] {
        let (result, allocated) = counted(|| Request::parse(Bytes::copy_from_slice(frame), &DecodeLimits::default()));
        result.unwrap_err();
        assert!(allocated < 1_000, "{allocated} bytes were allocated for {frame:02x?}");
    }
}

#[test]
fn a_frames_length_is_refused_before_its_payload_and_never_reserved() {
    let limits = FrameLimits { frame_bytes: 1_000 };
    let mut buffer = BytesMut::from(&1_001_u32.to_be_bytes()[..]);
    let refused = FrameError::TooLarge { bytes: 1_001, limit: 1_000 };
    assert_eq!(split_frame(&mut buffer, &limits).unwrap_err(), refused);
    assert_eq!(claimed(&[0, 0, 0, 0], &limits).unwrap_err(), FrameError::Empty);
    assert_eq!(claimed(&[0, 0, 3, 0xe8], &limits).unwrap(), Some(1_000));
    assert_eq!(claimed(&[0, 0, 3], &limits).unwrap(), None);

    let mut buffer = BytesMut::from(&16_000_000_u32.to_be_bytes()[..]);
    assert_eq!(needed(&buffer), 16_000_000);
    let ((), allocated) = counted(|| reserve(&mut buffer));
    assert!(allocated <= 70_000, "{allocated} bytes were reserved for a frame of which 4 bytes came");
}

#[test]
fn room_for_a_big_frame_grows_with_what_came() {
    let payload = 4_000_000;
    let mut buffer = BytesMut::from(&u32::try_from(payload).unwrap().to_be_bytes()[..]);
    let mut rounds = 0;
    while needed(&buffer) > 0 {
        reserve(&mut buffer);
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0 && room <= (4 * buffer.len()).max(70_000), "{room} bytes of room after {}", buffer.len());
        let arrives = room.min(needed(&buffer));
        buffer.put_bytes(1, arrives);
        rounds += 1;
    }
    assert!(rounds < 10, "the frame was moved {rounds} times");
    let frame = split_frame(&mut buffer, &FrameLimits::default()).unwrap().unwrap();
    assert_eq!(frame.len(), payload);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0..4_u8) {
        let frame = match head {
            0 => binary(&bytes),
            1 => compact(&bytes),
            2 => Bytes::from(bytes.clone()),
            _ => Bytes::from([&b"\x80\x01\0\x03\0\0\0\x01p\0\0\0\x01"[..], &bytes].concat()),
        };
        let (_, allocated) = counted(|| {
            let _ = decode(frame.clone());
            if let Ok(response) = Response::parse(frame.clone(), &DecodeLimits::default()) {
                let _ = response.result::<Sample, Sample>();
            }
        });
        // Every byte may be a struct (each some 350 bytes, and lists of them grow by doubling).
        prop_assert!(allocated < 2_000 * (frame.len() + 20), "{} bytes for {}", allocated, frame.len());
        let sniffed = sniff(&bytes, 16_384_000);
        let answer = sniffed.refusal(&bytes).map_or(0, |refusal| refusal.bytes.len());
        prop_assert!(answer < 1_000);
        let _ = wire::too_large(&bytes, 5);
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = split_frame(&mut buffer, &FrameLimits::default()) {}
    }

    #[test]
    fn a_damaged_message_never_panics(sample in any_sample(), compact: bool, at: prop::sample::Index, byte: u8) {
        let protocol = if compact { Protocol::Compact } else { Protocol::Binary };
        let frame = encode_call(protocol, "ping", 1, MessageKind::Call, &sample).unwrap();
        let mut bytes = frame.to_bytes().slice(4..).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(Bytes::from(bytes.clone()));
        bytes.truncate(at);
        prop_assert!(decode(Bytes::from(bytes)).is_err());
    }

    #[test]
    fn a_stream_gives_the_same_frames_wherever_it_is_cut(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 1..6),
    ) {
        let stream: Vec<u8> =
            frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect();
        let limits = FrameLimits::default();
        for cut in 0..=stream.len() {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                buffer.put_slice(part);
                while let Some(frame) = split_frame(&mut buffer, &limits).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(&seen, &frames);
            prop_assert_eq!(needed(&buffer), 0);
        }
    }

    #[test]
    fn every_call_is_sniffed_as_what_it_is(sample in any_sample(), compact: bool, seqid: i32) {
        let (protocol, framed, unframed) = match compact {
            true => (Protocol::Compact, Sniffed::FramedCompact, Sniffed::UnframedCompact),
            false => (Protocol::Binary, Sniffed::FramedBinary, Sniffed::UnframedBinary),
        };
        let bytes = encode_call(protocol, "ping", seqid, MessageKind::Call, &sample).unwrap().to_bytes();
        prop_assert_eq!(sniff(&bytes[..SNIFF_BYTES], 16_384_000), framed);
        prop_assert_eq!(sniff(&bytes[4..4 + SNIFF_BYTES], 16_384_000), unframed);
    }
}
