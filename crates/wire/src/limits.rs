//! What a peer may make this process do, in numbers.

/// Limits on frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most bytes of a frame's payload (the length prefix not counted). Values above [`FrameLimits::MOST`] act as that.
    pub frame_bytes: usize,
}

impl FrameLimits {
    /// The largest limit: below the number that the first letters of an HTTP request or of a TLS hello make, so that
    /// those are never taken for a length.
    pub const MOST: usize = 0x0fff_ffff;

    /// The limit in force.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frame_bytes.min(Self::MOST)
    }
}

impl Default for FrameLimits {
    /// 16,384,000 bytes: what most Thrift clients take and cannot be told to exceed.
    fn default() -> Self {
        Self { frame_bytes: 16_384_000 }
    }
}

/// Limits on what one message may hold, on top of "no claimed size exceeds the bytes that are left".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Deepest nesting of structs; values above [`DecodeLimits::DEEPEST`] act as that.
    pub depth: usize,
    /// Most elements of all lists, sets and maps of one message together (a map's entry counts once).
    pub container: usize,
    /// Most structs in one message. Whatever is set, a message has at most 256 and one for each eight of its bytes: an
    /// empty struct is one byte on the wire and some hundred in memory, and real ones have fields.
    pub structs: usize,
    /// Longest method name in bytes, the multiplexed service name included.
    pub method_bytes: usize,
}

impl DecodeLimits {
    /// The largest `depth`: the Apache crate's own limit for skipping.
    pub const DEEPEST: usize = 64;
}

impl Default for DecodeLimits {
    /// 64 deep, 1,000,000 elements, 1,000,000 structs, names of 256 bytes.
    fn default() -> Self {
        Self { depth: Self::DEEPEST, container: 1_000_000, structs: 1_000_000, method_bytes: 256 }
    }
}
