//! A connection's bytes: what they are, and where one frame ends.

use bytes::BytesMut;
use wire::{FrameError, FrameLimits, Sniffed, claimed, needed, reserve, sniff, split_frame, too_large};

use crate::choice;

const LIMIT: FrameLimits = FrameLimits { frame_bytes: 4_096 };
/// Every answer to strangers is shorter.
const ANSWER: usize = 2_048;

/// The same frames come out whether the bytes come at once or in small pieces.
pub(crate) fn frame(bytes: &[u8]) {
    let (first, stream) = choice(bytes);
    greet(stream);
    let whole = split([stream]);
    let pieces = split(stream.chunks(1 + usize::from(first) % 16));
    assert_eq!(whole, pieces, "frames depend on how the bytes came");
}

fn greet(stream: &[u8]) {
    let what = sniff(stream, LIMIT.bytes());
    for cut in 0..stream.len().min(wire::SNIFF_BYTES) {
        let early = sniff(&stream[..cut], LIMIT.bytes());
        assert!(early == Sniffed::NeedMore || early == what, "{early:?} became {what:?}");
    }
    if let Some(refusal) = what.refusal(stream) {
        assert!(refusal.bytes.len() < ANSWER);
    }
    if let Some(answer) = too_large(stream, LIMIT.bytes()) {
        assert!(answer.len() < ANSWER);
    }
}

fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<FrameError>, usize) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match split_frame(&mut buffer, &LIMIT) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                // What follows is nobody's.
                Err(error) => return (frames, Some(error), 0),
            }
        }
        let known = claimed(&buffer, &LIMIT);
        assert!(known.is_ok(), "a frame was refused later than its prefix");
        reserve(&mut buffer);
        assert!(buffer.capacity() < 512 * 1024, "{} bytes of room for {}", buffer.capacity(), buffer.len());
    }
    let lacking = needed(&buffer);
    (frames, None, lacking)
}
