//! An encoded message: small things in one buffer, big blobs by reference, ready for one vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{BufMut, Bytes, BytesMut};

use crate::envelope::{self, MessageKind, Protocol};
use crate::{Exceeded, WireError, blob, ttheader};

/// Room for an ordinary small message: the answer about a picture is 500 to 900 bytes. One that outgrows it is moved.
const FIRST_BYTES: usize = 1024;

/// What the protocols write into. `outside` holds the blobs and the places in `inline` before which they belong.
pub(crate) struct Segments {
    pub(crate) inline: BytesMut,
    outside: Vec<(usize, Bytes)>,
}

impl Segments {
    /// The value of a `binary` or `string` field whose length is already written.
    pub(crate) fn put_bytes(&mut self, value: &[u8]) {
        match blob::take_write() {
            Some(blob) => self.outside.push((self.inline.len(), blob)),
            None => self.inline.put_slice(value),
        }
    }
}

/// An encoded frame: length prefix, head and small fields in one buffer, blobs of 8 KiB and more by reference.
#[derive(Clone)]
pub struct Frame {
    protocol: Protocol,
    kind: MessageKind,
    seqid: i32,
    /// Where the frame begins in `inline`: the compact protocol's head is written up against the name, because the
    /// sequence number in it varies in length.
    start: usize,
    inline: BytesMut,
    outside: Vec<(usize, Bytes)>,
    blob_bytes: usize,
    name_bytes: usize,
    /// The limit that the call was over which this answers.
    exceeded: Option<Exceeded>,
}

impl Frame {
    /// Encodes one message.
    ///
    /// # Errors
    /// [`WireError::TooLarge`] when the payload does not fit the length prefix, [`WireError::Decode`] when the value
    /// is nested too deep.
    pub(crate) fn encode(
        protocol: Protocol,
        kind: MessageKind,
        name: &[u8],
        seqid: i32,
        write: impl FnOnce(&mut dyn thrift::protocol::TOutputProtocol) -> thrift::Result<()>,
    ) -> Result<Self, WireError> {
        let mut segments = Segments { inline: BytesMut::with_capacity(FIRST_BYTES), outside: Vec::new() };
        envelope::put_head(&mut segments.inline, protocol, name);
        match protocol {
            Protocol::Binary => write(&mut crate::SegOut::new(&mut segments))?,
            Protocol::Compact => write(&mut crate::CompactOut::new(&mut segments))?,
        }
        let Segments { inline, outside } = segments;
        let blob_bytes = outside.iter().map(|(_, blob)| blob.len()).sum();
        let name_bytes = name.len();
        let mut frame =
            Self { protocol, kind, seqid, start: 0, inline, outside, blob_bytes, name_bytes, exceeded: None };
        frame.seal();
        if i32::try_from(frame.len()).is_err() {
            return Err(WireError::TooLarge { bytes: frame.len() });
        }
        Ok(frame)
    }

    /// Bytes on the wire, the four of the prefix included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.inline.len() - self.start + self.blob_bytes
    }

    /// The limit that the call was over which this answers, for whoever counts.
    #[must_use]
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded
    }

    /// The same frame as the answer to a call over that limit.
    pub(crate) fn over(mut self, exceeded: Option<Exceeded>) -> Self {
        self.exceeded = exceeded;
        self
    }

    /// Bytes of the payload: what a peer compares with its frame limit.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.len() - 4
    }

    /// The protocol it is written in.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Call, reply, exception or oneway.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The sequence number in its head.
    #[must_use]
    pub fn seqid(&self) -> i32 {
        self.seqid
    }

    /// Gives the message another sequence number, without encoding it again.
    pub fn set_seqid(&mut self, seqid: i32) {
        self.seqid = seqid;
        self.seal();
    }

    /// Puts a TTHeader in front, as the answer to a call that came with this number in one. Its sequence number is final then.
    pub(crate) fn answer_ttheader(&mut self, number: i32) {
        let protocol = match self.protocol {
            Protocol::Binary => 0,
            Protocol::Compact => 2,
        };
        let head = ttheader::answer(number, protocol, self.len());
        // Blobs are not moved.
        let mut inline = BytesMut::with_capacity(head.len() + self.inline.len() - self.start);
        inline.put_slice(&head);
        inline.put_slice(&self.inline[self.start..]);
        for (at, _) in &mut self.outside {
            *at = *at - self.start + head.len();
        }
        self.inline = inline;
        self.start = 0;
    }

    fn seal(&mut self) {
        self.start = envelope::head_start(self.protocol, self.seqid);
        let payload = self.len() - 4;
        let head = &mut self.inline[self.start..];
        // The length was or will be checked against i32::MAX; the cast only ever truncates what is then refused.
        envelope::fill_head(head, self.protocol, self.kind, self.seqid, self.name_bytes, payload as u32);
    }

    /// Appends the slices that make up the frame, in order.
    pub fn push_slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        let mut from = self.start;
        for (at, blob) in &self.outside {
            out.push(IoSlice::new(&self.inline[from..*at]));
            out.push(IoSlice::new(blob));
            from = *at;
        }
        if from < self.inline.len() {
            out.push(IoSlice::new(&self.inline[from..]));
        }
    }

    /// Appends the pieces that make up the frame, in order; nothing is copied.
    pub fn append(self, out: &mut VecDeque<Bytes>) {
        let inline = self.inline.freeze();
        let mut from = self.start;
        for (at, blob) in self.outside {
            out.push_back(inline.slice(from..at));
            out.push_back(blob);
            from = at;
        }
        if from < inline.len() {
            out.push_back(inline.slice(from..));
        }
    }

    /// The whole frame as one piece when it has no blobs outside.
    pub(crate) fn as_one(&self) -> Option<&[u8]> {
        self.outside.is_empty().then(|| &self.inline[self.start..])
    }

    /// The whole frame, copied into one buffer: for tests and tools.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut slices = Vec::new();
        self.push_slices(&mut slices);
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({:?} {}, seqid {}, {} bytes)", self.protocol, self.kind, self.seqid, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(data: &[u8]) -> Frame {
        Frame::encode(Protocol::Binary, MessageKind::Reply, b"classify", 1, |output| output.write_bytes(data))
            .expect("it fits")
    }

    #[test]
    fn an_ordinary_answer_is_encoded_without_moving_it() {
        for bytes in [0, 500, 784, 900] {
            assert_eq!(reply(&vec![1; bytes]).inline.capacity(), FIRST_BYTES, "{bytes} bytes");
        }
        // What is larger is moved, and arrives nevertheless.
        let large = reply(&[1; 5_000]);
        assert!(large.inline.capacity() > FIRST_BYTES);
        assert!(large.to_bytes().ends_with(&[1; 5_000]));
    }
}
