//! libjpeg-turbo allocates in C, where the counting allocator sees nothing: the process's own peak is read instead, which
//! is why this test is alone in its program.

use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};
use vision::{Limits, Wanted};

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the peak is told");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn encoded(width: usize, height: usize, progressive: bool, sampling: Subsamp) -> Vec<u8> {
    let pixels: Vec<u8> = (0..width * height * 3).map(|index| (index / 7 % 256) as u8).collect();
    let image = Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    let mut compressor = Compressor::new().expect("a compressor");
    compressor.set_progressive(progressive).expect("a setting");
    compressor.set_subsamp(sampling).expect("a setting");
    compressor.compress_to_vec(image).expect("encodes")
}

#[test]
fn the_library_stays_within_what_the_header_announces() {
    // From the cheapest to the dearest, each above the peak so far (encoding of a small one), so that the peak shows it.
    let pictures = [
        encoded(1500, 1000, false, Subsamp::Sub2x2),
        encoded(1500, 1000, true, Subsamp::Sub2x2),
        encoded(1500, 1000, true, Subsamp::None),
    ];
    for (bytes, scaled_down) in pictures.iter().flat_map(|bytes| [(bytes, true), (bytes, false)]) {
        let header = vision::inspect(bytes, &Limits::default()).expect("header");
        let edge = if scaled_down { 100 } else { u32::MAX };
        let wanted = Wanted { min_width: edge, min_height: edge, gray: false };
        // Sets the peak back to what is held now.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux takes it");
        let before = peak_bytes();
        let picture = vision::decode(bytes, &header, &wanted, [0; 3]).expect("decodes");
        let grown = peak_bytes().saturating_sub(before);
        let announced = header.decoded_bytes(wanted);
        assert!(grown <= announced + (1 << 20), "{grown} bytes more, {announced} announced, scaled {scaled_down}");
        assert_eq!(picture.width, if scaled_down { 188 } else { 1500 });
    }
}
