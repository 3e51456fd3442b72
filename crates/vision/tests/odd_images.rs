//! Every awkward file gives the right pixels or the right error, in bounded memory; so do damaged copies of them.

mod held;

use serde::Deserialize;
use std::path::{Path, PathBuf};
use vision::{Channels, ImageError, Limits, Orientation, Picture, Wanted};

#[derive(Deserialize)]
struct Expected {
    file: String,
    expect: String,
    w: Option<u32>,
    h: Option<u32>,
    corner: Option<[u8; 3]>,
}

/// Where the table allows two answers, ours is the first (`expect`), except here.
const OTHERWISE: &[(&str, &str)] = &[("arithmetic.jpg", "ok")];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/odd-images")
}

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).expect("the file is in the tree")
}

fn expected() -> Vec<Expected> {
    let table = serde_json::from_slice::<Vec<Expected>>(&bytes("expected.json")).expect("the table parses");
    assert!(table.len() > 50, "only {} files", table.len());
    table
}

const WHITE: [u8; 3] = [255; 3];

/// On which gray with alpha becomes colour.
const COLOURED: [u8; 3] = [10, 200, 90];

fn everything(gray: bool) -> Wanted {
    Wanted { gray, ..Wanted::EVERYTHING }
}

fn read(encoded: &[u8], limits: &Limits, gray: bool) -> Result<Picture, ImageError> {
    read_on(encoded, limits, gray, WHITE)
}

fn read_on(encoded: &[u8], limits: &Limits, gray: bool, background: [u8; 3]) -> Result<Picture, ImageError> {
    let header = vision::inspect(encoded, limits)?;
    let picture = vision::decode(encoded, &header, &everything(gray), background)?;
    assert_eq!((picture.width, picture.height), (header.width, header.height));
    Ok(picture)
}

fn kind(result: &Result<Picture, ImageError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(ImageError::Empty) => "empty",
        Err(ImageError::NotAnImage) => "not_an_image",
        Err(ImageError::Unsupported { .. }) => "unsupported",
        Err(ImageError::Corrupt { .. }) => "corrupt",
        Err(ImageError::TooLarge(_)) => "too_large",
        Err(_) => "a defect",
    }
}

/// Mean of the top left 8x8 pixels, each channel.
fn corner(picture: &Picture) -> Vec<f64> {
    let channels = picture.channels.count();
    let (wide, high) = (picture.width.min(8) as usize, picture.height.min(8) as usize);
    let pixel = |x: usize, y: usize, channel: usize| {
        f64::from(picture.pixels[(y * picture.width as usize + x) * channels + channel])
    };
    let mean = |channel| {
        let sum: f64 = (0..high).flat_map(|y| (0..wide).map(move |x| (x, y))).map(|(x, y)| pixel(x, y, channel)).sum();
        sum / (wide * high) as f64
    };
    (0..channels).map(mean).collect()
}

#[test]
fn each_file_gives_its_pixels_or_its_error() {
    let mut wrong = Vec::new();
    for expected in expected() {
        let result = read(&bytes(&expected.file), &Limits::default(), false);
        let ours = OTHERWISE.iter().find(|(file, _)| *file == expected.file).map(|(_, kind)| *kind);
        if kind(&result) != ours.unwrap_or(&expected.expect) {
            wrong.push(format!("{}: {} and not {}: {:?}", expected.file, kind(&result), expected.expect, result.err()));
            continue;
        }
        let Ok(picture) = result else { continue };
        if Some(picture.width) != expected.w || Some(picture.height) != expected.h {
            wrong.push(format!("{}: {}x{}", expected.file, picture.width, picture.height));
        }
        // The table's colour is that without conversion; the converted one stands in its description.
        let colour = if expected.file == "icc-wide.jpg" { Some([241, 0, 0]) } else { expected.corner };
        let found = corner(&picture);
        if let Some(colour) = colour
            && found.iter().zip(colour).any(|(found, colour)| (found - f64::from(colour)).abs() > 12.0)
        {
            wrong.push(format!("{}: corner {found:?} and not {colour:?}", expected.file));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn gray_is_the_luma_of_the_colours() {
    for expected in expected() {
        let encoded = bytes(&expected.file);
        let (Ok(colour), gray) = (read(&encoded, &Limits::default(), false), read(&encoded, &Limits::default(), true))
        else {
            continue;
        };
        let gray = gray.expect("decodes in colour");
        assert_eq!(gray.channels, Channels::Gray, "{}", expected.file);
        let weigh =
            |pixel: &[u8; 3]| 0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2]);
        if colour.channels == Channels::Rgb {
            // Mean difference: a JPEG's stored luma differs from that of clamped colours where they are vivid.
            let pairs = colour.pixels.as_chunks::<3>().0.iter().zip(&gray.pixels);
            let sum: f64 = pairs.map(|(colour, &gray)| (weigh(colour) - f64::from(gray)).abs()).sum();
            let mean = sum / gray.pixels.len() as f64;
            assert!(mean < 1.5, "{}: {mean}", expected.file);
        } else {
            assert_eq!(colour, gray, "{}", expected.file);
        }
    }
}

#[test]
fn transparent_pixels_show_the_stated_background() {
    for file in ["rgba.png", "clear.png", "lossless-alpha.webp"] {
        let encoded = bytes(file);
        let header = vision::inspect(&encoded, &Limits::default()).expect(file);
        for background in [WHITE, COLOURED] {
            let picture = vision::decode(&encoded, &header, &Wanted::EVERYTHING, background).expect(file);
            assert_eq!(picture.pixels[..3], background, "{file}");
        }
    }
}

#[test]
fn orientation_is_told_by_the_header() {
    for value in 1..=8 {
        let header = vision::inspect(&bytes(&format!("exif-{value}.jpg")), &Limits::default()).expect("header");
        assert_eq!(header.orientation, Orientation::from_exif(value));
        assert_eq!((header.width, header.height), (96, 64));
    }
}

#[test]
fn what_is_encoded_carries_no_place_and_no_maker() {
    let encoded = bytes("exif-gps.jpg");
    let has = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
    assert!(has(&encoded, b"Exif"));
    let picture = read(&encoded, &Limits::default(), false).expect("decodes");
    for bytes in [
        vision::encode_jpeg(&picture, 90).expect("encodes"),
        vision::encode_png(&picture).expect("encodes"),
        vision::preview(&picture, 32).expect("encodes"),
        vision::preview_encoded(&encoded, &Limits::default(), 32).expect("encodes"),
    ] {
        assert!(!has(&bytes, b"Exif") && !has(&bytes, b"eXIf") && !has(&bytes, b"GPS"));
    }
}

/// Budget for a decode: what the header says, and the error's text.
fn budget(encoded: &[u8], limits: &Limits, gray: bool) -> u64 {
    let decoded = vision::inspect(encoded, limits).map_or(0, |header| header.decoded_bytes(everything(gray)));
    decoded + (64 << 10)
}

#[test]
fn no_file_takes_more_memory_than_its_header_announces() {
    for expected in expected() {
        let encoded = bytes(&expected.file);
        for (gray, background) in [(false, WHITE), (true, WHITE), (false, COLOURED), (true, COLOURED)] {
            let budget = budget(&encoded, &Limits::default(), gray);
            let (result, most) = held::most_held(|| read_on(&encoded, &Limits::default(), gray, background));
            assert!(most <= budget, "{}: {most} bytes held, {budget} announced: {:?}", expected.file, result.err());
        }
    }
}

/// A PNG of gray and alpha, large enough for its pixels to outweigh whatever else a decoder keeps.
fn gray_with_alpha(depth: png::BitDepth, alpha: Alpha, on_its_side: bool) -> Vec<u8> {
    let (width, height) = (1200, 900);
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, width, height);
    encoder.set_depth(depth);
    let samples = match alpha {
        Alpha::EachPixel => {
            encoder.set_color(png::ColorType::GrayscaleAlpha);
            2
        }
        Alpha::OneLevel => {
            encoder.set_color(png::ColorType::Grayscale);
            encoder.set_trns(vec![0, 0]);
            1
        }
    };
    let mut writer = encoder.write_header().expect("a header");
    if on_its_side {
        // One entry in big-endian order: orientation (0x0112), a short, one of them, 6.
        let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        writer.write_chunk(png::chunk::ChunkType(*b"eXIf"), exif).expect("a chunk");
    }
    let bytes = if depth == png::BitDepth::Sixteen { 2 } else { 1 };
    writer.write_image_data(&vec![0; (width * height) as usize * samples * bytes]).expect("pixels");
    drop(writer);
    encoded
}

/// How a gray PNG is transparent.
#[derive(Clone, Copy, Debug)]
enum Alpha {
    EachPixel,
    OneLevel,
}

#[test]
fn gray_with_alpha_takes_no_more_than_announced_on_any_background() {
    for depth in [png::BitDepth::Eight, png::BitDepth::Sixteen] {
        for (alpha, on_its_side) in
            [(Alpha::EachPixel, false), (Alpha::EachPixel, true), (Alpha::OneLevel, false), (Alpha::OneLevel, true)]
        {
            let encoded = gray_with_alpha(depth, alpha, on_its_side);
            for (gray, background) in [(false, WHITE), (true, WHITE), (false, COLOURED), (true, COLOURED)] {
                let budget = budget(&encoded, &Limits::default(), gray);
                let (result, most) = held::most_held(|| read_on(&encoded, &Limits::default(), gray, background));
                let case = format!("{depth:?} {alpha:?} on its side: {on_its_side}, gray: {gray}, {background:?}");
                let picture = result.expect(&case);
                assert_eq!(picture.width, if on_its_side { 900 } else { 1200 }, "{case}");
                assert_eq!(picture.channels == Channels::Rgb, !gray && background == COLOURED, "{case}");
                assert!(most <= budget, "{case}: {most} bytes held, {budget} announced");
            }
        }
    }
}

#[test]
fn bombs_stay_small() {
    for file in
        ["bomb-idat.png", "bomb-ztxt.png", "bomb-12000.png", "huge-header.png", "max-header.png", "huge-claim.jpg"]
    {
        let encoded = bytes(file);
        let (result, most) = held::most_held(|| read(&encoded, &Limits::default(), false));
        // 64 MiB and more when unpacked.
        assert!(most < 1 << 20, "{file}: {most} bytes held: {:?}", result.err());
    }
}

#[test]
fn reading_a_header_allocates_nothing() {
    for expected in expected().iter().filter(|expected| expected.expect == "ok") {
        let encoded = bytes(&expected.file);
        let (_, most) = held::most_held(|| vision::inspect(&encoded, &Limits::default()).is_ok());
        assert_eq!(most, 0, "{}", expected.file);
    }
}

/// The frame's own size is far down in the file; its decoder would allocate 400 MB before comparing it with the canvas.
#[test]
fn a_webp_frame_larger_than_its_canvas_is_refused_at_once() {
    let mut encoded = bytes("animated.webp");
    // Key frame mark of a lossy frame, then width and height of 14 bits each.
    let mark = encoded.windows(3).position(|window| window == [0x9d, 0x01, 0x2a]).expect("a lossy frame");
    encoded[mark + 3..mark + 7].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    let (result, most) = held::most_held(|| read(&encoded, &Limits::default(), false));
    assert_eq!(kind(&result), "corrupt");
    assert!(most < 1 << 20, "{most} bytes held");
}

#[test]
fn a_tiff_value_that_claims_more_than_the_file_is_refused_at_once() {
    let mut encoded = bytes("lzw.tiff");
    let start = u32::from_le_bytes([encoded[4], encoded[5], encoded[6], encoded[7]]) as usize + 2;
    // Bits per sample, the third tag as a rule: its count becomes 2^27.
    let entry = (0..20).map(|index| start + 12 * index).find(|&at| encoded[at..at + 2] == [2, 1]).expect("the tag");
    encoded[entry + 4..entry + 8].copy_from_slice(&[0, 0, 0, 8]);
    let (result, most) = held::most_held(|| read(&encoded, &Limits::default(), false));
    assert_eq!(kind(&result), "corrupt");
    assert!(most < 1 << 20, "{most} bytes held");
}

/// Replays what a fuzzer would do: bits flipped, bytes replaced, the end cut off, at seeded places.
#[test]
fn damaged_files_neither_panic_nor_grow() {
    let seed = std::env::var("VISION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101);
    println!("VISION_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Damage to a size may make it large; that is refused here, so that the test stays quick.
    let limits = Limits { pixels: 1 << 20, ..Limits::default() };
    let mut gave_up = Vec::new();
    for expected in expected() {
        let whole = bytes(&expected.file);
        if whole.is_empty() {
            continue;
        }
        let rounds = if whole.len() > 20_000 { 30 } else { 120 };
        for round in 0..rounds {
            let mut damaged = whole.clone();
            if round % 3 == 0 {
                damaged.truncate(random.usize(0..whole.len()));
            }
            // Half of the damage goes to the first bytes, where the sizes are.
            for _ in 0..random.usize(0..5) {
                let reach = if random.bool() { damaged.len() } else { damaged.len().min(200) };
                if reach > 0 {
                    let at = random.usize(0..reach);
                    damaged[at] = if random.bool() { random.u8(..) } else { damaged[at] ^ (1 << random.u8(0..8)) };
                }
            }
            let (gray, background) = (random.bool(), if random.bool() { WHITE } else { COLOURED });
            // A damaged WebP may claim a partition of 2^24 bytes, reserved (zero pages, untouched) before it is read.
            let claimed = if damaged.get(8..12) == Some(b"WEBP") { 17 << 20 } else { 0 };
            let budget = budget(&damaged, &limits, gray) + claimed;
            let (result, most) = held::most_held(|| read_on(&damaged, &limits, gray, background));
            let name = format!("{} round {round}", expected.file);
            assert!(most <= budget, "{name}: {most} bytes held, {budget} announced: {:?}", result.err());
            assert_ne!(kind(&result), "a defect", "{name}: {:?}", result.err());
            if matches!(&result, Err(ImageError::Corrupt { reason, .. }) if reason.contains("gave up")) {
                gave_up.push(name);
            }
        }
    }
    assert!(gave_up.is_empty(), "decoders panicked inside: {gave_up:?}");
}
