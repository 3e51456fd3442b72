//! Headers of pictures.

use vision::{Limits, Wanted, inspect};

/// What decoding may take at most by the header's word: four times sixteen bits and some copies of each pixel, and what
/// decoders keep besides.
const BYTES_PER_PIXEL: u64 = 64;
const BESIDES: u64 = 64 << 20;

/// A header keeps within the limits, and says what decoding costs without going wrong.
pub(crate) fn picture(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(header) = inspect(bytes, &limits) else { return };
    let (width, height) = (header.width, header.height);
    assert!(width >= 1 && height >= 1 && width.max(height) <= limits.edge, "{width}x{height}");
    let pixels = u64::from(width) * u64::from(height);
    assert!(pixels <= limits.pixels, "{width}x{height}");
    for side in [1, 224, u32::MAX] {
        let wanted = Wanted { min_width: side, min_height: side, gray: side == 224 };
        let cost = header.decoded_bytes(wanted);
        assert!(cost <= pixels * BYTES_PER_PIXEL + BESIDES, "{cost} bytes for {width}x{height} px: {header:?}");
    }
}
