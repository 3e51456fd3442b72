use super::*;

fn limits() -> Limits {
    Limits::default()
}

/// A JPEG header with these frame bytes and one scan of three components.
fn jpeg(frame_code: u8, precision: u8, components: u8) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, frame_code, 0, 8 + 3 * components, precision, 0, 64, 0, 96, components];
    for component in 0..components {
        bytes.extend([component + 1, if component == 0 { 0x22 } else { 0x11 }, 0]);
    }
    bytes.extend([0xff, 0xda, 0, 6 + 2 * components, components]);
    bytes.extend(std::iter::repeat_n(0, usize::from(3 + 2 * components)));
    bytes
}

#[test]
fn a_jpeg_of_twelve_bits_is_refused_by_name() {
    let error = inspect(&jpeg(0xc1, 12, 3), &limits()).expect_err("twelve bits");
    assert!(matches!(&error, ImageError::Unsupported { what, .. } if what.contains("12 bits")), "{error}");
    assert!(inspect(&jpeg(0xc1, 8, 3), &limits()).is_ok());
}

#[test]
fn progressive_pictures_cost_their_coefficients() {
    let cost = |bytes: &[u8]| inspect(bytes, &limits()).expect("header").decoded_bytes(Wanted::EVERYTHING);
    let (baseline, progressive) = (cost(&jpeg(0xc0, 8, 3)), cost(&jpeg(0xc2, 8, 3)));
    // 96x64 px in 4:2:0: 1.5 coefficients of two bytes for each pixel.
    assert_eq!(progressive - baseline, 96 * 64 * 3);
}

#[test]
fn cost_falls_with_dct_scaling_but_never_below_what_is_wanted() {
    let header = inspect(&jpeg(0xc0, 8, 3), &limits()).expect("header");
    let scale = |width, height| header.jpeg_scale(Wanted { min_width: width, min_height: height, gray: false }).0;
    assert_eq!(scale(12, 8), 8);
    assert_eq!(scale(13, 8), 4);
    assert_eq!(scale(48, 32), 2);
    assert_eq!(scale(48, 33), 1);
    assert_eq!(scale(u32::MAX, u32::MAX), 1);
    let wanted = Wanted { min_width: 12, min_height: 8, gray: false };
    assert!(header.decoded_bytes(wanted) < header.decoded_bytes(Wanted::EVERYTHING));
}

#[test]
fn colours_are_interpolated_unless_the_picture_shrinks_to_four_sevenths() {
    let header = inspect(&jpeg(0xc0, 8, 3), &limits()).expect("header");
    let coarse =
        |width, height| header.jpeg_colours_may_be_coarse(Wanted { min_width: width, min_height: height, gray: false });
    // Twice what a picture of 96x64 px is resized to.
    assert!(coarse(109, 73));
    assert!(!coarse(110, 73) && !coarse(109, 74));
    assert!(!header.jpeg_colours_may_be_coarse(Wanted::EVERYTHING));
}

#[test]
fn limits_are_inclusive() {
    let bytes = jpeg(0xc0, 8, 3);
    let exact = Limits { bytes: bytes.len() as u64, pixels: 96 * 64, edge: 96 };
    assert!(inspect(&bytes, &exact).is_ok());
    for (tight, says) in [
        (Limits { bytes: exact.bytes - 1, ..exact }, "bytes"),
        (Limits { pixels: exact.pixels - 1, ..exact }, "px in all"),
        (Limits { edge: 95, ..exact }, "px an edge"),
    ] {
        let error = inspect(&bytes, &tight).expect_err("over the limit");
        assert!(matches!(error, ImageError::TooLarge(_)) && error.to_string().ends_with(says), "{error}");
    }
}

#[test]
fn an_exif_block_is_read_in_both_byte_orders() {
    let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
    let little = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x08\0\0\0";
    assert_eq!(exif::orientation(big), Orientation::Turn90);
    assert_eq!(exif::orientation(little), Orientation::Turn270);
    for length in 0..big.len() - 4 {
        assert_eq!(exif::orientation(&big[..length]), Orientation::Upright, "cut at {length}");
    }
}

#[test]
fn a_bmp_stored_from_the_top_has_a_positive_height() {
    let mut bytes = vec![0; 54];
    bytes[..2].copy_from_slice(b"BM");
    bytes[14] = 40;
    bytes[18] = 7;
    bytes[22..26].copy_from_slice(&(-5_i32).to_le_bytes());
    let header = inspect(&bytes, &limits()).expect("header");
    assert_eq!((header.width, header.height), (7, 5));
    bytes[18..22].copy_from_slice(&(-7_i32).to_le_bytes());
    assert!(matches!(inspect(&bytes, &limits()), Err(ImageError::Corrupt { .. })));
    bytes[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0x80]);
    assert!(matches!(inspect(&bytes, &limits()), Err(ImageError::TooLarge(_))));
}
